// The latest changes, as the feed tells them. All that comes from the marketplace is put in as text.
import { show, visible } from "./visible.js";

const SILENCE = 45_000; // three heartbeats: the server has gone
const RETRY = [500, 1000, 2000, 4000];
const NAMES_AFTER = 400;
const MAX_TOLD = 3;
const MAX_TEXT = 80;

const TONES = { created: "good", deleted: "bad", updated: "busy", changed: "plain" };
// Times that the marketplace moves with every change; said only where there is nothing else.
const QUIET = new Set(["remote_updated_at", "rating_at"]);
const short = (text) => {
    const signs = [...text]; // so that an emoji is not cut in two
    return signs.length > MAX_TEXT ? `${signs.slice(0, MAX_TEXT - 1).join("")}…` : text;
};

function value(found) {
    if (found === null || found === "") {
        return "nothing";
    }
    if (Array.isArray(found)) {
        return found.length ? found.slice(0, 6).join(", ") : "nothing";
    }
    return typeof found === "object" ? JSON.stringify(found).slice(0, 4 * MAX_TEXT) : String(found).slice(0, 4 * MAX_TEXT);
}

// What changed, in words.
function told({ kind, data }) {
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
    const loud = names.filter((name) => !QUIET.has(name));
    const said = (loud.length ? loud : names).map((name) => `${name.replaceAll("_", " ")}: ${short(value(data[name]))}`);
    const more = said.length - MAX_TOLD;
    return said.slice(0, MAX_TOLD).join("; ") + (more > 0 ? `; and ${more} more` : "");
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
    #ask;
    #names = new Map();
    #waiting = []; // changes to be shown at the next frame: no more than fit
    #due = false;
    #asking = 0; // a timer, 0 for none
    paused = false;

    constructor(page, list, ask) {
        this.#page = page;
        this.#list = list;
        this.#ask = ask;
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
        if (!this.#due && !this.paused && this.#waiting.length) {
            this.#due = true;
            requestAnimationFrame(() => this.#render());
        }
    }

    #render() {
        this.#due = false;
        for (const change of this.#waiting.splice(0)) {
            this.#list.prepend(this.#row(change));
        }
        while (this.#list.children.length > this.#page.shown) {
            // A row that has the focus stays until it is left.
            const last = [...this.#list.children].reverse().find((row) => !row.contains(document.activeElement));
            last.remove();
        }
        if (this.#names.size > 1000) {
            this.#names = new Map([...this.#names].slice(-200));
        }
        document.getElementById("mm-feed-none").hidden = true;
        this.#asking ||= setTimeout(() => this.#askNames(), NAMES_AFTER);
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
        show(what.firstChild, told(change));
        what.title = what.textContent;
        row.append(at, badge, link, what, element("span", "mm-quiet mm-source", change.source));
        return row;
    }

    // The feed tells what changed, not what it is called: names that are not known yet are asked for, once.
    async #askNames() {
        this.#asking = 0;
        const rows = [...this.#list.children].filter((row) => !this.#names.has(row.dataset.key));
        const keys = [...new Set(rows.map((row) => row.dataset.key))];
        if (!keys.length) {
            return;
        }
        try {
            const answer = await this.#ask(`${this.#page.names}?${new URLSearchParams(keys.map((key) => ["key", key]))}`);
            const { names } = await answer.json();
            for (const key of keys) {
                this.#names.set(key, names[key] ?? key);
            }
            for (const row of rows) {
                show(row.querySelector("a bdi"), short(this.#names.get(row.dataset.key)));
            }
        } catch {
            // The ids stand there; that the server has gone is said elsewhere.
        }
    }
}

export function follow(page, list, ask) {
    const rows = new Rows(page, list, ask);
    const state = document.getElementById("mm-feed-live");
    const pause = document.getElementById("mm-feed-pause");
    let after = page.after;
    let failures = 0;
    let quiet = 0;

    const say = (tone, text) => {
        state.className = `mm-badge mm-${tone}`;
        state.textContent = text;
    };

    pause.hidden = false;
    pause.addEventListener("click", () => {
        rows.paused = !rows.paused;
        pause.setAttribute("aria-pressed", String(rows.paused));
        pause.textContent = rows.paused ? "Go on" : "Pause";
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
            clearTimeout(quiet);
            quiet = setTimeout(() => socket.close(), SILENCE);
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
                say("good", "following");
            }
        });
        socket.addEventListener("close", ({ code, reason }) => {
            clearTimeout(quiet);
            if (code === 4410) {
                after = null; // what came meanwhile is no longer kept: go on from now
            }
            say("warn", code === 4401 || code === 4403 ? reason : "cut off, connecting again");
            if (code !== 4401 && code !== 4403) {
                setTimeout(connect, RETRY[Math.min(failures, RETRY.length - 1)]);
                failures += 1;
            }
        });
    };
    say("busy", "connecting");
    connect();
}
