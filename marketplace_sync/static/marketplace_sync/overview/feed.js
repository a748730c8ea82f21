// The latest changes, from the change feed. Values of the marketplace are only inserted as text.
import { show, visible } from "./visible.js";

const MAX_SILENCE = 45_000; // three heartbeats: the connection is dead
const RETRY_AFTER = [500, 1000, 2000, 4000];
const FETCH_NAMES_AFTER = 400;
const MAX_FIELDS = 3;
const MAX_TEXT = 80;

const TONES = { created: "good", deleted: "bad", updated: "busy", changed: "plain" };
// Times that change with every change; shown only where nothing else changed.
const MINOR = new Set(["remote_updated_at", "rating_at"]);
const short = (text) => {
    const chars = [...text]; // code points, so that no emoji is cut in two
    return chars.length > MAX_TEXT ? `${chars.slice(0, MAX_TEXT - 1).join("")}…` : text;
};

function value(found) {
    if (found === null || found === "") {
        return "empty";
    }
    if (Array.isArray(found)) {
        return found.length ? found.slice(0, 6).join(", ") : "empty";
    }
    return typeof found === "object" ? JSON.stringify(found).slice(0, 4 * MAX_TEXT) : String(found).slice(0, 4 * MAX_TEXT);
}

// Returns the changed fields as text.
function describe({ kind, data }) {
    if (kind === "skill_created") {
        return [data.category && `in ${data.category}`, data.version && `version ${data.version}`].filter(Boolean).join(", ");
    }
    if (kind.endsWith("_created") || kind.endsWith("_deleted")) {
        return "";
    }
    if (kind === "rating_changed") {
        const stars = data.average_rating === undefined ? [] : [`average ${value(data.average_rating)}`];
        const votes = data.rating_count === undefined ? [] : [`${data.rating_count} ratings`];
        return [...stars, ...votes].join(", ");
    }
    const names = Object.keys(data);
    const major = names.filter((name) => !MINOR.has(name));
    const fields = (major.length ? major : names).map((name) => `${name.replaceAll("_", " ")}: ${short(value(data[name]))}`);
    const more = fields.length - MAX_FIELDS;
    return fields.slice(0, MAX_FIELDS).join("; ") + (more > 0 ? `; and ${more} more` : "");
}

function element(name, classes, text) {
    const made = document.createElement(name);
    made.className = classes;
    if (text !== undefined) {
        made.textContent = text;
    }
    return made;
}

class Rows {
    #page;
    #list;
    #request;
    #names = new Map();
    #waiting = []; // changes for the next frame: no more than fit the list
    #scheduled = false;
    #timer = 0; // of the next fetch of names; 0 for none
    paused = false;

    constructor(page, list, request) {
        this.#page = page;
        this.#list = list;
        this.#request = request;
    }

    add(changes) {
        for (const change of changes) {
            if (typeof change.data.name === "string" && !change.kind.startsWith("category")) {
                this.#names.set(change.key, change.data.name);
            }
        }
        this.#waiting = [...this.#waiting, ...changes].slice(-this.#page.shown);
        this.show();
    }

    show() {
        if (!this.#scheduled && !this.paused && this.#waiting.length) {
            this.#scheduled = true;
            requestAnimationFrame(() => this.#render());
        }
    }

    #render() {
        this.#scheduled = false;
        for (const change of this.#waiting.splice(0)) {
            this.#list.prepend(this.#row(change));
        }
        while (this.#list.children.length > this.#page.shown) {
            // A row that has the focus stays until it loses it.
            const last = [...this.#list.children].reverse().find((row) => !row.contains(document.activeElement));
            last.remove();
        }
        if (this.#names.size > 1000) {
            this.#names = new Map([...this.#names].slice(-200));
        }
        document.getElementById("mm-feed-none").hidden = true;
        this.#timer ||= setTimeout(() => this.#fetchNames(), FETCH_NAMES_AFTER);
    }

    #row(change) {
        const row = element("li", "mm-change");
        row.dataset.seq = change.seq;
        row.dataset.key = change.key;
        const at = element("time", "mm-time mm-quiet", `${change.at.slice(11, 19)}Z`);
        at.setAttribute("datetime", change.at);
        at.title = `${change.at.slice(0, 19).replace("T", " ")}Z`;
        const word = change.kind.split("_").at(-1);
        const badge = element("span", `mm-badge mm-${TONES[word] ?? "plain"}`, change.kind.replaceAll("_", " "));
        const link = element("a", "mm-link mm-clip");
        link.href = this.#page.change.replace("/0/", `/${change.seq}/`);
        link.append(element("bdi", ""));
        show(link.firstChild, short(this.#names.get(change.key) ?? change.key));
        link.title = visible(change.key);
        const what = element("span", "mm-clip mm-what");
        what.append(element("bdi", ""));
        show(what.firstChild, describe(change));
        what.title = what.textContent;
        row.append(at, badge, link, what, element("span", "mm-quiet mm-source", change.source));
        return row;
    }

    // The feed sends only changed fields. Unknown names are fetched once.
    async #fetchNames() {
        this.#timer = 0;
        const rows = [...this.#list.children].filter((row) => !this.#names.has(row.dataset.key));
        const keys = [...new Set(rows.map((row) => row.dataset.key))];
        if (!keys.length) {
            return;
        }
        try {
            const answer = await this.#request(`${this.#page.names}?${new URLSearchParams(keys.map((key) => ["key", key]))}`);
            const { names } = await answer.json();
            for (const key of keys) {
                this.#names.set(key, names[key] ?? key);
            }
            for (const row of rows) {
                show(row.querySelector("a bdi"), short(this.#names.get(row.dataset.key)));
            }
        } catch {
            // The ids stay. The banner reports that the server does not answer.
        }
    }
}

export function follow(page, list, request) {
    const rows = new Rows(page, list, request);
    const state = document.getElementById("mm-feed-live");
    const pause = document.getElementById("mm-feed-pause");
    let after = page.after;
    let failures = 0;
    let silence = 0; // a timer

    const setState = (tone, text) => {
        state.className = `mm-badge mm-${tone}`;
        state.textContent = text;
    };

    pause.hidden = false;
    pause.addEventListener("click", () => {
        rows.paused = !rows.paused;
        pause.setAttribute("aria-pressed", String(rows.paused));
        pause.textContent = rows.paused ? "Resume" : "Pause";
        rows.show();
    });

    const connect = () => {
        const url = new URL(page.feed, location.href);
        url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
        if (after !== null) {
            url.searchParams.set("after", after);
        }
        const socket = new WebSocket(url);
        const listen = () => {
            clearTimeout(silence);
            silence = setTimeout(() => socket.close(), MAX_SILENCE);
        };
        listen();
        socket.addEventListener("message", ({ data }) => {
            listen();
            const message = JSON.parse(data);
            if (message.type === "changes") {
                after = message.changes.at(-1).seq;
                rows.add(message.changes);
            } else if (message.type === "ready" || message.type === "heartbeat") {
                after = message.seq;
                failures = 0;
                document.getElementById("mm-feed-none").hidden = list.children.length > 0 || after > 0;
                setState("good", "following");
            }
        });
        socket.addEventListener("close", ({ code, reason }) => {
            clearTimeout(silence);
            if (code === 4410) {
                after = null; // the changes in between are no longer kept: continue from now
            }
            setState("warn", code === 4401 || code === 4403 ? reason : "disconnected, reconnecting");
            if (code !== 4401 && code !== 4403) {
                setTimeout(connect, RETRY_AFTER[Math.min(failures, RETRY_AFTER.length - 1)]);
                failures += 1;
            }
        });
    };
    setState("busy", "connecting");
    connect();
}
