// Charts of series by window, drawn by uPlot. The reader's place is told by a line of text, reached by pointer and arrows.

import { element } from "./dom.js";
import * as format from "./format.js";

const HEIGHT = 190;
// There is no half of an event.
const WHOLE = Array.from({ length: 16 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat();
export const available = () => typeof window.uPlot === "function";

export class Chart {
  // kind: "lines" or "stacked"; value(number): how it is shown; whole: how the legend tells of a series when nobody points
  constructor({ label, kind, value, whole }) {
    this.label = label;
    this.kind = kind;
    this.value = value;
    this.whole = whole;
    this.plot = null;
    this.shape = null;
    this.at = null;
    this.legend = element("ul", { class: "legend values" });
    this.when = element("p", { class: "when" });
    this.canvas = element("div", { class: "chart", tabindex: "0", role: "slider", "aria-label": label });
    this.root = element("div", {}, this.canvas, element("div", { class: "reading" }, this.legend, this.when));
    this.canvas.addEventListener("focus", () => this.move(this.at ?? this.last()));
    this.canvas.addEventListener("blur", () => this.move(null));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.resize()).observe(this.canvas);
    // uPlot draws on a canvas, which knows no variables of the style sheet.
    addEventListener("theme", () => {
      this.shape = null;
      if (this.span) this.show(this.span, this.series);
    });
  }

  // series: [{name, values, tone}]
  show(span, series) {
    this.span = span;
    this.series = series;
    this.canvas.setAttribute("aria-valuemin", "0");
    this.canvas.setAttribute("aria-valuemax", String(this.last()));
    if (available()) this.draw();
    this.read(this.at);
  }

  draw() {
    const shape = JSON.stringify([this.span.range, this.series.map(({ name, tone }) => [name, tone])]);
    const data = this.data();
    if (this.plot && this.shape === shape) {
      this.plot.setData(data);
    } else {
      this.plot?.destroy();
      this.shape = shape;
      this.plot = new window.uPlot(this.options(), data, this.canvas);
      performance.mark("chart"); // what bench/page.py measures
    }
  }

  data() {
    const xs = this.series[0].values.map((_, at) => this.span.since + (at + 0.5) * this.span.window_s);
    if (this.kind === "lines") return [xs, ...this.series.map(({ values }) => values)];
    // Each bar is drawn from the ground, over the one that it is stacked on: the highest first.
    const sums = xs.map(() => 0);
    const stacked = this.series.map(({ values }) => values.map((value, at) => (sums[at] += value ?? 0)));
    return [xs, ...stacked.reverse()];
  }

  options() {
    const ink = (name) => resolved(this.canvas, `var(--${name})`);
    const bars = window.uPlot.paths.bars({ size: [0.72, 48], radius: 0.12 });
    const lines = this.series.map(({ name, tone }) => ({ label: name, ...this.stroke(ink(tone), bars) }));
    const axis = {
      stroke: ink("quiet"),
      font: `12px ${resolvedFont()}`,
      ticks: { show: false },
      grid: { stroke: ink("line"), width: 1 },
    };
    return {
      width: this.canvas.clientWidth || 300,
      height: HEIGHT,
      padding: [10, 18, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { show: this.kind === "lines", size: 7 } },
      tzDate: (s) => window.uPlot.tzDate(new Date(s * 1000), "Etc/UTC"),
      scales: {
        x: { range: [this.span.since, this.span.until] },
        y: { range: (_, __, most) => [0, most > 0 ? most * 1.08 : 1] },
      },
      series: [{}, ...(this.kind === "lines" ? lines : lines.reverse())],
      axes: [
        {
          ...axis,
          grid: { show: false },
          space: 68,
          size: 28,
          values: (_, splits) => splits.map((s) => format.tick(this.span, s)),
        },
        {
          ...axis,
          size: 58,
          gap: 6,
          space: 38,
          ...(this.value === format.count ? { incrs: WHOLE } : {}),
          values: (_, splits) => splits.map((v) => (v === 0 ? "0" : this.value(v))),
        },
      ],
      hooks: { setCursor: [(plot) => this.pointed(plot.cursor.idx)] },
    };
  }

  stroke(colour, bars) {
    if (this.kind === "lines") return { stroke: colour, width: 2, points: { size: 5, fill: colour } };
    return { stroke: colour, fill: colour, width: 0, paths: bars, points: { show: false } };
  }

  resize() {
    const width = this.canvas.clientWidth;
    if (this.plot && width && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT });
  }

  last() {
    return this.series ? this.series[0].values.length - 1 : 0;
  }

  key(event) {
    const at = this.at ?? this.last();
    const next = {
      ArrowLeft: at - 1,
      ArrowDown: at - 1,
      ArrowRight: at + 1,
      ArrowUp: at + 1,
      Home: 0,
      End: this.last(),
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    this.move(Math.max(0, Math.min(next, this.last())));
  }

  // To a window, by keyboard; null: nobody looks any more.
  move(at) {
    this.at = at;
    if (this.plot) {
      const left = at === null ? -10 : this.plot.valToPos(this.plot.data[0][at], "x");
      this.plot.setCursor({ left, top: at === null ? -10 : 10 });
    }
    this.read(at);
  }

  pointed(at) {
    if (document.activeElement === this.canvas && at === null) return;
    this.at = at ?? null;
    this.read(this.at);
  }

  read(at) {
    if (!this.series) return;
    const texts = this.series.map(({ values }) => {
      if (at === null) return this.whole(values);
      return values[at] === null || values[at] === undefined ? "–" : this.value(values[at]);
    });
    this.legend.replaceChildren(
      ...this.series.map(({ name, tone }, index) => {
        const item = element("li", {}, element("bdi", {}, name), " ", element("b", {}, texts[index]));
        item.style.setProperty("--tone", `var(--${tone})`);
        return item;
      }),
    );
    this.when.textContent = at === null ? "" : format.windowAt(this.span, at);
    const place = at ?? this.last();
    this.canvas.setAttribute("aria-valuenow", String(place));
    const said = this.series.map(({ name }, index) => `${name} ${texts[index]}`).join(", ");
    this.canvas.setAttribute("aria-valuetext", at === null ? said : `${format.windowAt(this.span, at)}: ${said}`);
  }
}

function resolved(within, colour) {
  const probe = element("span");
  probe.style.color = colour;
  within.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

const resolvedFont = () => getComputedStyle(document.body).fontFamily;
