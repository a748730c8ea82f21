// Keeps the overview up to date: polls its parts and figures, and follows the change feed.
import { Charts } from "./charts.js";
import { Clock } from "./clock.js";
import { follow } from "./feed.js";
import { Offline, Parts } from "./parts.js";

const page = JSON.parse(document.getElementById("mm-page").textContent);
const POLL_EVERY = 2000;
// Every eighth poll also fetches the expensive parts and the figures of the charts.
const ALL_EVERY = 8;
const TIMEOUT = 8000;

const clock = new Clock();
const offline = new Offline();
const parts = new Parts(clock);
const charts = new Charts();

async function request(url) {
    const answer = await fetch(url, {
        redirect: "manual", cache: "no-store", credentials: "same-origin", signal: AbortSignal.timeout(TIMEOUT),
    });
    if (answer.type === "opaqueredirect" || answer.status === 403) {
        throw new Offline.LoggedOut();
    }
    if (!answer.ok) {
        throw new Error(`the server answered ${answer.status}`);
    }
    return answer;
}

let polls = 0;
let timer = 0;
let polling = false;

async function poll() {
    if (polling) {
        return;
    }
    polling = true;
    clearTimeout(timer);
    const all = polls % ALL_EVERY === 0;
    try {
        const query = new URLSearchParams({ command: page.command, all: all && polls ? "1" : "0" });
        parts.show(await (await request(`${page.now}?${query}`)).text());
        if (all && charts.exist) {
            charts.add(await (await request(`${page.figures}?after=${charts.newest}`)).json());
        }
        polls += 1;
        offline.end();
    } catch (error) {
        polls = 0; // the next successful poll fetches everything
        offline.begin(error);
    } finally {
        polling = false;
        timer = setTimeout(poll, POLL_EVERY);
    }
}

// A hidden page does not poll; it polls immediately when it becomes visible.
document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
        clearTimeout(timer);
    } else {
        poll();
    }
});

const feed = document.getElementById("mm-feed");
if (feed) {
    follow(page, feed, request);
}
clock.start();
poll();
