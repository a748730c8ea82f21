// The charts of the last 24 hours, one point per minute. The same figures are available as text and as a table.

const MINUTE = 60;
const MINUTES = 24 * 60;
const HEIGHT = 160;
// The shortest time axis, in seconds: the first minutes are not stretched over the whole width.
const MIN_SPAN = 3600;

const number = (value) => (value >= 10 || value === 0 ? Math.round(value).toLocaleString("en") : value.toFixed(value < 0.1 ? 2 : 1));
const seconds = (value) => {
    if (value < 1) {
        return `${Number((value * 1000).toPrecision(2))} ms`;
    }
    return value < 120 ? `${Number(value.toPrecision(2))} s` : `${Math.round(value / 60)} min`;
};
// The legend shows the value under the pointer; without a pointer, the newest value.
const legend = (show) => (self, value, series, place) => {
    const found = place === null || place === undefined ? known(self.data[series]).at(-1) : value;
    return found === null || found === undefined ? "–" : show(found);
};

const rate = (count) => (count === null ? null : count / MINUTE);
const same = (value) => value;

// The series of each chart: column, label, colour, dash, conversion of the column, and whether the area is filled.
const CHARTS = {
    messages: {
        show: number,
        series: [
            ["received", "received", "--mm-line-1", [], rate],
            ["applied", "applied", "--mm-line-2", [6, 3], rate],
            ["shed", "shed", "--mm-line-3", [2, 2], rate],
            ["rejected", "rejected", "--mm-line-4", [8, 3, 2, 3], rate],
        ],
    },
    lag: {
        show: seconds,
        log: true,
        series: [
            ["lag_p50", "median", "--mm-line-1", [], same],
            ["lag_p99", "p99", "--mm-line-3", [4, 3], same],
        ],
    },
    size: { show: number, series: [["skills", "skills", "--mm-line-1", [], same, true]] },
};

// The columns of the table: heading, column, how an hour of minutes becomes one value, and its format.
const mean = (values) => values.reduce((sum, each) => sum + each, 0) / values.length;
const last = (values) => values.at(-1);
const TABLE = [
    ["received per second", "received", mean, (value) => number(value / MINUTE)],
    ["applied per second", "applied", mean, (value) => number(value / MINUTE)],
    ["shed", "shed", (values) => mean(values) * values.length, number],
    ["rejected", "rejected", (values) => mean(values) * values.length, number],
    ["lag, median", "lag_p50", (values) => [...values].sort((a, b) => a - b)[values.length >> 1], seconds],
    ["lag, worst p99", "lag_p99", (values) => Math.max(...values), seconds],
    ["skills", "skills", last, number],
    ["categories", "categories", last, number],
    ["open dead letters", "open_dead_letters", last, number],
];

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const known = (values) => values.filter((value) => value !== null);

export class Charts {
    #rows = new Map(); // from minute (seconds since 1970) to its figures by name
    #figures = new Map(); // from chart name to its element
    #drawn = new Map(); // from chart name to its uPlot
    #table = document.getElementById("mm-table");

    constructor() {
        for (const name of Object.keys(CHARTS)) {
            const figure = document.getElementById(`mm-chart-${name}`);
            if (figure) {
                this.#figures.set(name, figure);
            }
        }
        const resized = new ResizeObserver(() => this.#fit());
        this.#figures.forEach((figure) => resized.observe(figure));
        // The theme switch sets a class; the canvas must be redrawn in the new colours.
        new MutationObserver(() => this.#draw(true)).observe(document.documentElement, { attributeFilter: ["class"] });
        this.#table?.addEventListener("toggle", () => this.#fill());
    }

    get exist() {
        return this.#figures.size > 0;
    }

    // The newest known minute. It may not have been over, so it is fetched again.
    get newest() {
        return Math.max(0, ...[...this.#rows.keys()].slice(-1));
    }

    add(columns) {
        const { at, ...figures } = columns;
        at.forEach((minute, place) => {
            this.#rows.delete(minute);
            this.#rows.set(minute, Object.fromEntries(Object.entries(figures).map(([name, all]) => [name, all[place]])));
        });
        const oldest = this.newest - MINUTES * MINUTE;
        for (const minute of this.#rows.keys()) {
            if (minute < oldest) {
                this.#rows.delete(minute);
            }
        }
        this.#draw(false);
        this.#fill();
    }

    // Every minute up to the newest. A minute without a row is a gap: no daemon ran then.
    #columns(names) {
        const newest = this.newest;
        const minutes = [...this.#rows.keys()];
        const first = minutes.length ? Math.max(minutes[0], newest - (MINUTES - 1) * MINUTE) : newest;
        const at = [];
        for (let minute = first; minute <= newest; minute += MINUTE) {
            at.push(minute);
        }
        return [at, ...names.map((name) => at.map((minute) => this.#rows.get(minute)?.[name] ?? null))];
    }

    #draw(redraw) {
        if (!this.#rows.size) {
            return;
        }
        for (const [name, figure] of this.#figures) {
            const chart = CHARTS[name];
            const [at, ...raw] = this.#columns(chart.series.map(([column]) => column));
            // The current minute is not over: its rate would always look too low.
            const whole = name === "messages" && at.length > 1 ? at.length - 1 : at.length;
            const data = [at.slice(0, whole), ...raw.map((column, place) => column.slice(0, whole).map(chart.series[place][4]))];
            const empty = data.slice(1).every((column) => !known(column).length);
            figure.classList.toggle("mm-has-none", empty);
            this.#describe(figure, chart, data.slice(1));
            if (empty) {
                continue;
            }
            if (redraw || !this.#drawn.has(name)) {
                this.#drawn.get(name)?.destroy();
                const place = figure.querySelector(".mm-chart");
                this.#drawn.set(name, new uPlot(options(chart, place.clientWidth), data, place));
            } else {
                this.#drawn.get(name).setData(data);
            }
        }
    }

    #fit() {
        for (const [name, drawn] of this.#drawn) {
            const width = this.#figures.get(name).querySelector(".mm-chart").clientWidth;
            if (width && width !== drawn.width) {
                drawn.setSize({ width, height: HEIGHT });
            }
        }
    }

    #describe(figure, chart, columns) {
        const texts = chart.series.map(([, label], place) => {
            const values = known(columns[place]);
            if (!values.length) {
                return `${label}: no figures`;
            }
            return `${label} now ${chart.show(values.at(-1))}, from ${chart.show(Math.min(...values))} to ${chart.show(Math.max(...values))}`;
        });
        const title = figure.querySelector("h2").firstChild.textContent.trim();
        figure.querySelector(".mm-chart").setAttribute("aria-label", `${title}, last 24 hours: ${texts.join("; ")}.`);
    }

    #fill() {
        if (!this.#table?.open || !this.#rows.size) {
            return;
        }
        const columns = TABLE.filter(([, name]) => name in this.#rows.get(this.newest));
        const row = (cell, texts) => {
            const made = document.createElement("tr");
            texts.forEach((text, place) => {
                const each = document.createElement(place ? cell : "th");
                each.textContent = text;
                if (!place || cell === "th") {
                    each.scope = cell === "th" ? "col" : "row";
                }
                made.append(each);
            });
            return made;
        };
        const hours = new Map();
        for (const [minute, figures] of this.#rows) {
            const hour = minute - (minute % 3600);
            hours.set(hour, [...(hours.get(hour) ?? []), figures]);
        }
        const rows = [...hours].reverse().map(([hour, minutes]) =>
            row("td", [
                `${new Date(hour * 1000).toISOString().slice(5, 16).replace("T", " ")}Z`,
                ...columns.map(([, name, fold, show]) => {
                    const values = known(minutes.map((figures) => figures[name]));
                    return values.length ? show(fold(values)) : "–";
                }),
            ]),
        );
        this.#table.querySelector("thead").replaceChildren(row("th", ["Hour", ...columns.map(([heading]) => heading)]));
        this.#table.querySelector("tbody").replaceChildren(...rows);
    }
}

function atLeastOneHour(first, newest) {
    return [Math.min(first, newest - MIN_SPAN), newest];
}

function options(chart, width) {
    const axis = { stroke: colour("--mm-axis"), grid: { stroke: colour("--mm-grid"), width: 1 }, ticks: { show: false }, font: "11px Inter, system-ui, sans-serif" };
    const upright = { ...axis, size: 54, space: 28, values: (_, splits) => splits.map((value) => (value === null ? "" : chart.show(value))) };
    if (chart.log) {
        upright.grid = { ...axis.grid, filter: (_, splits) => splits.map((value) => (Number.isInteger(Math.log10(value)) ? value : null)) };
    }
    const two = (value) => String(value).padStart(2, "0");
    return {
        width,
        height: HEIGHT,
        padding: [8, 20, 0, 0],
        tzDate: (at) => uPlot.tzDate(new Date(at * 1000), "Etc/UTC"),
        cursor: { y: false, drag: { x: false, y: false } },
        // The end is the newest minute of the data: for a single minute uPlot would show a whole future day.
        scales: { x: { range: (plot, first, newest) => atLeastOneHour(first, plot.data[0].at(-1) ?? newest) }, y: chart.log ? { distr: 3 } : { range: (_, __, most) => [0, Math.max(most * 1.1, 1)] } },
        axes: [
            { ...axis, space: 60, size: 28, values: (_, splits) => splits.map((at) => {
                const moment = new Date(at * 1000);
                return `${two(moment.getUTCHours())}:${two(moment.getUTCMinutes())}`;
            }) },
            upright,
        ],
        series: [
            { value: legend((at) => `${new Date(at * 1000).toISOString().slice(11, 16)}Z`), label: "at" },
            ...chart.series.map(([, label, stroke, dash, , filled]) => ({
                label,
                stroke: colour(stroke),
                fill: filled ? colour("--mm-fill") : undefined,
                dash,
                width: 1.75,
                points: { size: 4, filter: isolated },
                value: legend(chart.show),
            })),
        ],
    };
}

// A minute between two gaps has no line to a neighbour, so it is drawn as a point.
function isolated(self, place) {
    const values = self.data[place];
    const has = (index) => values[index] !== null && values[index] !== undefined;
    return values.flatMap((_, index) => (has(index) && !has(index - 1) && !has(index + 1) ? [index] : []));
}
