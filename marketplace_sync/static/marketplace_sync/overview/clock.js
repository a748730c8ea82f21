// Relative times that are updated every second, by the server's clock, not this machine's.

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
    const ahead = away < -2; // the database's clock was set back
    if ("for" in element.dataset) {
        return ahead ? "an unknown time" : span(away);
    }
    return ahead ? `in ${span(-away)}` : `${span(away)} ago`;
}

export class Clock {
    #offset = 0; // the server's clock minus this machine's, in milliseconds

    start() {
        this.tick();
        setInterval(() => this.tick(), 1000);
    }

    // `moment` is the server's time now.
    set(moment) {
        this.#offset = Date.parse(moment) - Date.now();
    }

    tick(within = document) {
        const now = Date.now() + this.#offset;
        for (const element of within.querySelectorAll("time[data-ago], time[data-for], time[data-until]")) {
            const moment = element.getAttribute("datetime");
            element.title ||= `${moment.slice(0, 19).replace("T", " ")}Z`;
            const shown = text(element, (now - Date.parse(moment)) / 1000);
            if (element.textContent !== shown) {
                element.textContent = shown;
            }
        }
    }
}
