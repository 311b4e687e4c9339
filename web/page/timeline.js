// How a service was from one region, window by window: a bar each, filled in proportion. Down hangs from the top, so that
// it is told from up without colours too.

import { drawn, element } from "./dom.js";
import * as format from "./format.js";

const STATES = ["up", "down", "maintenance", "unknown"];
//: Of a bar; a short outage in a long window would not be seen.
const LEAST_SHOWN = 0.14;

export class Timeline {
  // onRead(text or null): what the reader points at
  constructor(name, onRead) {
    this.name = name;
    this.onRead = onRead;
    this.svg = drawn("svg", { preserveAspectRatio: "none", "aria-hidden": "true" });
    this.mark = element("span", { class: "mark", hidden: true });
    this.root = element(
      "div",
      { class: "timeline", tabindex: "0", role: "slider", "aria-label": `Timeline of ${name}` },
      this.mark,
    );
    this.root.prepend(this.svg);
    this.at = null;
    this.root.addEventListener("pointermove", (event) => this.point(event));
    this.root.addEventListener("pointerdown", (event) => this.point(event));
    this.root.addEventListener("pointerleave", () => this.leave());
    this.root.addEventListener("focus", () => this.read(this.at ?? this.states.length - 1));
    this.root.addEventListener("blur", () => this.leave());
    this.root.addEventListener("keydown", (event) => this.key(event));
  }

  show(span, states) {
    this.span = span;
    this.states = states;
    this.svg.setAttribute("viewBox", `0 0 ${states.length} 1`);
    const bars = [];
    states.forEach((state, at) => {
      if (state) bars.push(...bar(state, at, span.window_s));
    });
    this.svg.replaceChildren(...bars);
    this.root.setAttribute("aria-valuemin", "0");
    this.root.setAttribute("aria-valuemax", String(states.length - 1));
    this.value(Math.min(this.at ?? states.length - 1, states.length - 1));
    if (this.at !== null) this.read(Math.min(this.at, states.length - 1));
  }

  value(at) {
    this.root.setAttribute("aria-valuenow", String(at));
    this.root.setAttribute("aria-valuetext", this.text(at));
  }

  text(at) {
    const state = this.states[at];
    const said = state
      ? STATES.map((name, index) => [name, state[index]])
          .filter(([, seconds]) => seconds > 0)
          .map(([name, seconds]) => `${name} ${format.seconds(seconds)}`)
          .join(", ") || "nothing known"
      : "nothing known";
    return `${format.windowAt(this.span, at)}: ${said}`;
  }

  point(event) {
    const box = this.root.getBoundingClientRect();
    const at = Math.floor(((event.clientX - box.left) / box.width) * this.states.length);
    this.read(Math.max(0, Math.min(at, this.states.length - 1)));
  }

  key(event) {
    const last = this.states.length - 1;
    const at = this.at ?? last;
    const next = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, Home: 0, End: last }[
      event.key
    ];
    if (next === undefined) return;
    event.preventDefault();
    this.read(Math.max(0, Math.min(next, last)));
  }

  read(at) {
    this.at = at;
    this.value(at);
    this.mark.hidden = false;
    this.mark.style.left = `${((at + 0.5) / this.states.length) * 100}%`;
    this.onRead(`${this.name}, ${this.text(at)}`);
  }

  leave() {
    if (document.activeElement === this.root && this.root.matches(":focus-visible")) return;
    this.at = null;
    this.mark.hidden = true;
    this.onRead(null);
  }
}

function bar(state, at, whole) {
  const [up, down, maintenance, unknown] = state.map((seconds) => seconds / whole);
  const shown = { down: down > 0 ? Math.max(down, LEAST_SHOWN) : 0, maintenance, unknown, up };
  // What is enlarged takes from the largest of the others.
  const excess = shown.down + maintenance + unknown + up - Math.max(1, down + maintenance + unknown + up);
  if (excess > 0) {
    const largest = ["up", "maintenance", "unknown"].reduce((a, b) => (shown[b] > shown[a] ? b : a));
    shown[largest] = Math.max(0, shown[largest] - excess);
  }
  const rects = [];
  // It stands on the ground: what is missing at the top is yet to come.
  let y = Math.max(0, 1 - (shown.down + shown.maintenance + shown.unknown + shown.up));
  for (const name of ["down", "maintenance", "unknown", "up"]) {
    if (shown[name] <= 0) continue;
    rects.push(drawn("rect", { class: name, x: at + 0.08, y, width: 0.84, height: shown[name] }));
    y += shown[name];
  }
  return rects;
}
