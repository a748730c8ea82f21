// Replaces the parts of the page that differ from the server's, and shows a banner while the server does not answer.

const FOCUSABLE = "a[href], button, summary, input, textarea";

export class Parts {
    #shown = new Map(); // from id to the HTML of the part as it was received
    #clock;

    constructor(clock) {
        this.#clock = clock;
        this.#clock.set(document.getElementById("mm-clock").dataset.now);
    }

    // `html` contains parts from our own server. It is parsed outside of the page, where no script in it runs.
    show(html) {
        const received = new DOMParser().parseFromString(html, "text/html");
        this.#clock.set(received.getElementById("mm-clock").dataset.now);
        const before = document.getElementById("mm-state")?.textContent;
        for (const part of received.querySelectorAll("[data-part]")) {
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
            // A screen reader announces this once; the part itself is replaced too often to be announced.
            document.getElementById("mm-announcement").textContent = `The state is now: ${after}.`;
        }
    }
}

// A replaced part keeps the keyboard focus.
function replace(here, next) {
    const focused = here.contains(document.activeElement) ? document.activeElement : null;
    const place = focused ? [...here.querySelectorAll(FOCUSABLE)].indexOf(focused) : -1;
    here.replaceWith(next);
    if (focused) {
        const same = [...next.querySelectorAll(FOCUSABLE)];
        (same.find((each) => each.href && each.href === focused.href) ?? same[place])?.focus({ preventScroll: true });
    }
}

export class Offline {
    static LoggedOut = class extends Error {};

    #banner = document.getElementById("mm-offline");
    #since = null;

    begin(error) {
        this.#since ??= new Date();
        const when = this.#since.toISOString().slice(11, 19);
        const loggedOut = error instanceof Offline.LoggedOut;
        const why = error.name === "TimeoutError" ? "no answer within 8 s" : error.message;
        const text = loggedOut
            ? `You are logged out, or may no longer see this page. It shows the state of ${when}Z. Reload the page to log in.`
            : `Lost the connection to the server at ${when}Z: ${why}. The page shows the state at that time. Trying again.`;
        if (this.#banner.textContent !== text) {
            this.#banner.textContent = text;
        }
        this.#banner.hidden = false;
        document.getElementById("mm-overview").classList.add("mm-stale");
    }

    end() {
        if (this.#since === null) {
            return;
        }
        this.#since = null;
        this.#banner.hidden = true;
        this.#banner.textContent = "";
        document.getElementById("mm-overview").classList.remove("mm-stale");
        document.getElementById("mm-announcement").textContent = "Connected to the server again.";
    }
}
