// What people do: how often, and how many different ones.

import { Chart } from "./charts.js";
import { datum, element, Panel, table } from "./dom.js";
import * as format from "./format.js";

const NAMES = {
  viewed: "viewed",
  page_viewed: "pages viewed",
  downloaded: "downloaded",
  logged_in: "logged in",
  signed_up: "signed up",
  resource_created: "created",
};
const TONES = {
  viewed: "series-0",
  page_viewed: "series-2",
  downloaded: "series-1",
  logged_in: "series-3",
  signed_up: "series-4",
  resource_created: "series-5",
};
const TRAFFIC = ["viewed", "page_viewed", "downloaded"];

const sum = (values) => values.reduce((a, b) => a + (b ?? 0), 0);
const line = (of, values) => ({ name: NAMES[of.action] ?? of.action, values, tone: TONES[of.action] ?? "idle" });
const ordered = (actions, names) =>
  names.map((name) => actions.find(({ action }) => action === name)).filter((found) => found);

export class Traffic {
  constructor() {
    this.panel = new Panel("traffic");
    this.chart = new Chart({
      label: "Views and downloads in each window",
      kind: "stacked",
      value: format.count,
      whole: (values) => format.count(sum(values)),
    });
  }

  show({ actions }, span) {
    const traffic = ordered(actions, TRAFFIC);
    this.panel.aside.textContent = traffic.length ? `by ${format.WINDOWS[span.window]}` : "";
    if (!traffic.length) return this.panel.nothing("No views and no downloads in this range.");
    if (!this.panel.body.contains(this.chart.root))
      this.panel.show(this.chart.root, element("p", { class: "quiet fine" }));
    this.chart.show(
      span,
      traffic.map((of) => line(of, of.series)),
    );
    const loaded = traffic.find(({ action }) => action === "downloaded");
    this.panel.body.lastElementChild.replaceChildren(
      ...(loaded
        ? [
            "Downloaded: ",
            datum(loaded.bytes, format.bytes(loaded.bytes), format.exactly(loaded.bytes, "bytes")),
            " in files, ",
            datum(loaded.items, format.count(loaded.items), undefined),
            " items in datasets.",
          ]
        : []),
    );
  }
}

export class People {
  constructor() {
    this.panel = new Panel("people");
    this.chart = new Chart({
      label: "Unique users in each window",
      kind: "lines",
      value: format.count,
      whole: (values) => `up to ${format.count(Math.max(...values.map((v) => v ?? 0)))}`,
    });
  }

  show({ actions }, span) {
    this.panel.aside.textContent = actions.length ? `of each ${format.WINDOWS[span.window]}` : "";
    if (!actions.length) return this.panel.nothing("Nobody did anything in this range.");
    const charted = ordered(actions, ["viewed", "downloaded", "logged_in"]);
    const drawn = charted.length ? charted : actions.slice(0, 3);
    if (!this.panel.body.contains(this.chart.root))
      this.panel.show(this.chart.root, element("div"), element("p", { class: "quiet fine" }));
    this.chart.show(
      span,
      drawn.map((of) => ({ ...line(of, of.users), name: (of.users_at_least ? "≥ " : "") + line(of, []).name })),
    );
    const rows = actions.map((of) => [
      NAMES[of.action] ?? of.action,
      datum(of.events, format.count(of.events), format.exactly(of.events)),
      of.users_today === null
        ? element("span", { class: "quiet" }, "–")
        : datum(of.users_today, (of.users_at_least ? "≥ " : "") + format.count(of.users_today), undefined),
    ]);
    this.panel.body.children[1].replaceWith(
      table(
        "What people did",
        [{ title: "" }, { title: "events", number: true }, { title: "users today", number: true }],
        rows,
      ),
    );
    this.panel.body.querySelector("th").append(element("span", { class: "unseen" }, "action"));
    this.panel.body.lastElementChild.textContent = actions.some((of) => of.users_at_least)
      ? "≥: the most in any one space. Users of several spaces cannot be added up."
      : "";
  }
}
