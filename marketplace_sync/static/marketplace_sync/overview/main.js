// The front page keeps itself up to date: parts by asking, changes by the feed, charts by their figures.
import { Charts } from "./charts.js";
import { Clock } from "./clock.js";
import { follow } from "./feed.js";
import { Lost, Parts } from "./parts.js";

const page = JSON.parse(document.getElementById("mm-page").textContent);
const PARTS_EVERY = 2000;
// Every so many looks the costlier parts are asked for too, and the charts' figures.
const ALL_EVERY = 8;
const PATIENCE = 8000;

const clock = new Clock();
const lost = new Lost();
const parts = new Parts(clock);
const charts = new Charts();

async function ask(url) {
    const answer = await fetch(url, {
        redirect: "manual", cache: "no-store", credentials: "same-origin", signal: AbortSignal.timeout(PATIENCE),
    });
    if (answer.type === "opaqueredirect" || answer.status === 403) {
        throw new Lost.LoggedOut();
    }
    if (!answer.ok) {
        throw new Error(`the server answers ${answer.status}`);
    }
    return answer;
}

let looks = 0;
let timer = 0;
let looking = false;

async function look() {
    if (looking) {
        return;
    }
    looking = true;
    clearTimeout(timer);
    const all = looks % ALL_EVERY === 0;
    try {
        const query = new URLSearchParams({ request: page.request, all: all && looks ? "1" : "0" });
        parts.show(await (await ask(`${page.now}?${query}`)).text());
        if (all && charts.any) {
            charts.add(await (await ask(`${page.figures}?after=${charts.newest}`)).json());
        }
        looks += 1;
        lost.over();
    } catch (fault) {
        looks = 0; // what comes after that has all of it
        lost.since(fault);
    } finally {
        looking = false;
        timer = setTimeout(look, PARTS_EVERY);
    }
}

// Nobody looks at a page that is hidden, so it asks for nothing, and at once when it is seen again.
document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
        clearTimeout(timer);
    } else {
        look();
    }
});

const feed = document.getElementById("mm-feed");
if (feed) {
    follow(page, feed, ask);
}
clock.start();
look();
