// Marks invisible characters as the server does: `marketplace_sync.visible` makes the regular expression.

const page = JSON.parse(document.getElementById("mm-page").textContent);
const UNSEEN = new RegExp(page.unseen, "gu");
const BLANK_CHARS = 255;

const mark = (char) => `⟨U+${char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`;

// Splits the text: `[text, false]` is visible, `[character, true]` is one invisible character.
export function pieces(text) {
    if (text && text.length <= BLANK_CHARS && !text.trim()) {
        return [...text].map((char) => [char, true]);
    }
    const found = [];
    let begin = 0;
    for (const match of text.matchAll(UNSEEN)) {
        if (match[1] !== undefined) {
            found.push([text.slice(begin, match.index), false], [match[1], true]);
            begin = match.index + match[0].length;
        }
    }
    found.push([text.slice(begin), false]);
    return found.filter(([piece]) => piece);
}

export const visible = (text) => pieces(text).map(([piece, unseen]) => (unseen ? mark(piece) : piece)).join("");

// Shows the text in the element, with each mark in a span of its own.
export function show(element, text) {
    const shown = pieces(text);
    const nodes = shown.map(([piece, unseen]) => {
        const node = document.createElement("span");
        node.className = unseen ? "mm-unseen" : "";
        node.textContent = unseen ? mark(piece) : piece;
        return unseen ? node : document.createTextNode(piece);
    });
    element.replaceChildren(...nodes);
    element.classList.toggle("mm-has-unseen", shown.some(([, unseen]) => unseen));
}
