// Times that run: how long ago, for how long, until when; by the server's clock, not this machine's.

function span(seconds) {
    const whole = Math.max(0, Math.round(seconds));
    if (whole < 60) {
        return `${whole} s`;
    }
    const minutes = Math.floor(whole / 60);
    if (minutes < 60) {
        return minutes < 10 ? `${minutes} min ${whole % 60} s` : `${minutes} min`;
    }
    const hours = Math.floor(minutes / 60);
    return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

function text(element, away) {
    if ("until" in element.dataset) {
        return away > -0.5 ? "now" : `in ${span(-away)}`;
    }
    const ahead = away < -2; // the database's clock was put back
    if ("for" in element.dataset) {
        return ahead ? "an unknown time" : span(away);
    }
    return ahead ? `in ${span(-away)}` : `${span(away)} ago`;
}

export class Clock {
    #ahead = 0; // the server's clock minus ours, milliseconds

    start() {
        this.tick();
        setInterval(() => this.tick(), 1000);
    }

    // The server's time now, as it has just told it.
    set(moment) {
        this.#ahead = Date.parse(moment) - Date.now();
    }

    tick(within = document) {
        const now = Date.now() + this.#ahead;
        for (const element of within.querySelectorAll("time[data-ago], time[data-for], time[data-until]")) {
            const moment = element.getAttribute("datetime");
            element.title ||= `${moment.slice(0, 19).replace("T", " ")}Z`;
            const told = text(element, (now - Date.parse(moment)) / 1000);
            if (element.textContent !== told) {
                element.textContent = told;
            }
        }
    }
}
