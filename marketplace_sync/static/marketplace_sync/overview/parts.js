// The parts that the server renders, put in the place of those that differ; and the word that there is no server.

const FOCUSABLE = "a[href], button, summary, input, textarea";

export class Parts {
    #shown = new Map(); // by id: the part as it was sent
    #clock;

    constructor(clock) {
        this.#clock = clock;
        this.#clock.set(document.getElementById("mm-clock").dataset.now);
    }

    // `html`: parts from our own server. Parsed apart from the page, where no script in it would run.
    show(html) {
        const sent = new DOMParser().parseFromString(html, "text/html");
        this.#clock.set(sent.getElementById("mm-clock").dataset.now);
        const before = document.getElementById("mm-state")?.textContent;
        for (const part of sent.querySelectorAll("[data-part]")) {
            const source = part.outerHTML;
            const here = document.getElementById(part.id);
            if (here && this.#shown.get(part.id) !== source) {
                this.#shown.set(part.id, source);
                replace(here, document.importNode(part, true));
            }
        }
        this.#clock.tick();
        const after = document.getElementById("mm-state")?.textContent;
        if (after && after !== before) {
            // Said aloud once, where the part itself, replaced again and again, would not be.
            document.getElementById("mm-said").textContent = `The mirror is ${after}.`;
        }
    }
}

// A keyboard's user must not be thrown out of a part because it was renewed.
function replace(here, next) {
    const focused = here.contains(document.activeElement) ? document.activeElement : null;
    const place = focused ? [...here.querySelectorAll(FOCUSABLE)].indexOf(focused) : -1;
    here.replaceWith(next);
    if (focused) {
        const same = [...next.querySelectorAll(FOCUSABLE)];
        (same.find((each) => each.href && each.href === focused.href) ?? same[place])?.focus({ preventScroll: true });
    }
}

export class Lost {
    static LoggedOut = class extends Error {};

    #banner = document.getElementById("mm-lost");
    #since = null;

    since(fault) {
        this.#since ??= new Date();
        const when = this.#since.toISOString().slice(11, 19);
        const out = fault instanceof Lost.LoggedOut;
        const why = fault.name === "TimeoutError" ? "it does not answer in time" : fault.message;
        const told = out
            ? "You are logged out, or may no longer see this page. What is shown is of then. Load the page again to log in."
            : `Lost touch with the server at ${when}Z: ${why}. What is shown is of then; trying again.`;
        if (this.#banner.textContent !== told) {
            this.#banner.textContent = told;
        }
        this.#banner.hidden = false;
        document.getElementById("mm-overview").classList.add("mm-stale");
    }

    over() {
        if (this.#since === null) {
            return;
        }
        this.#since = null;
        this.#banner.hidden = true;
        this.#banner.textContent = "";
        document.getElementById("mm-overview").classList.remove("mm-stale");
        document.getElementById("mm-said").textContent = "In touch with the server again.";
    }
}
