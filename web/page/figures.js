// Uptime, response times, spaces, extractors.

import { Chart } from "./charts.js";
import { datum, element, foreign, Panel, table } from "./dom.js";
import * as format from "./format.js";
import { Timeline } from "./timeline.js";

const MOST_LINES = 6;

export class Uptime {
  constructor() {
    this.panel = new Panel("uptime");
    this.rows = new Map();
    this.order = "";
    this.reading = this.panel.root.querySelector(".when");
    this.axis = element("div", { class: "axis", "aria-hidden": "true" });
    this.more = element("p", { class: "quiet fine" });
  }

  show({ services, left_out: leftOut }, span) {
    if (!services.length) {
      this.order = "";
      this.rows.clear();
      this.panel.nothing("No health checks in this range. `eventsink monitor` makes them, and runs anywhere.");
      return;
    }
    // Timelines stay as they are while they are looked at: only what they show changes.
    const order = JSON.stringify(services.map(({ service, region }) => [service, region]));
    if (order !== this.order) this.lay(services);
    this.order = order;
    for (const found of services) this.fill(this.rows.get(key(found)), found, span);
    const length = (span.until - span.since) / span.window_s;
    const labels = [0, 0.25, 0.5, 0.75].map((share) =>
      format.edge(span, span.since + Math.floor(share * length) * span.window_s),
    );
    this.axis.replaceChildren(...[...labels, "now"].map((label) => element("span", {}, label)));
    this.more.hidden = !leftOut;
    this.more.textContent = `${leftOut} more are at /v1/rollups/service_uptime.`;
  }

  lay(services) {
    this.rows.clear();
    const several = new Set(services.map(({ service }) => service)).size > 1;
    const parts = [
      element(
        "div",
        { class: "service-row heads", "aria-hidden": "true" },
        element("span"),
        element("span"),
        element("span", {}, "range"),
        element("span", {}, "today"),
      ),
    ];
    let last = null;
    for (const found of services) {
      if (found.service !== last && several) parts.push(element("h3", {}, foreign(found.service)));
      last = found.service;
      const name = found.region === "all" ? "all regions" : found.region;
      const timeline = new Timeline(several ? `${found.service}, ${name}` : name, (text) => {
        this.reading.textContent = text ?? "";
      });
      const ratio = element("span", { class: "ratio" });
      const today = element("span", { class: "ratio today" });
      this.rows.set(key(found), { timeline, ratio, today });
      parts.push(
        element(
          "div",
          {
            class: found.region === "all" ? "service-row quorum" : "service-row",
            "data-region": found.region,
            "data-service": found.service,
          },
          foreign(name, { class: "region", title: name }),
          timeline.root,
          ratio,
          today,
        ),
      );
    }
    parts.push(
      element(
        "div",
        { class: "service-row axis-row" },
        element("span"),
        this.axis,
        element("span"),
        element("span"),
      ),
      this.more,
    );
    this.panel.show(...parts);
  }

  fill({ timeline, ratio, today }, found, span) {
    timeline.show(span, found.states);
    ratio.replaceChildren(share(found.uptime_ratio, "in the range"));
    today.replaceChildren(share(found.uptime_ratio_today, "today"));
    const wrong = found.down_s > 0;
    ratio.classList.toggle("wrong", wrong);
    ratio.title = `up ${format.seconds(found.up_s)}, down ${format.seconds(found.down_s)}, maintenance ${format.seconds(found.maintenance_s)}, unknown ${format.seconds(found.unknown_s)}`;
  }
}

const key = ({ service, region }) => JSON.stringify([service, region]);

function share(ratio, when) {
  if (ratio === null)
    return element(
      "span",
      { class: "quiet" },
      element("span", { class: "unseen" }, `unknown ${when}`),
      element("span", { "aria-hidden": "true" }, "–"),
    );
  return element(
    "span",
    {},
    datum(ratio, format.percent(ratio), undefined),
    element("span", { class: "unseen" }, ` ${when}`),
  );
}

export class Response {
  constructor() {
    this.panel = new Panel("response");
    this.chart = new Chart({
      label: "Response time, p95 of each window",
      kind: "lines",
      value: format.milliseconds,
      whole: (values) => `up to ${format.milliseconds(Math.max(...values.filter((v) => v !== null)))}`,
    });
  }

  show({ services }, span) {
    const timed = services.filter(
      ({ response_ms_p95: p95, region }) => region !== "all" && p95.some((value) => value !== null),
    );
    const several = new Set(timed.map(({ service }) => service)).size > 1;
    const most = (found) => Math.max(...found.response_ms_p95.filter((value) => value !== null));
    const shown = [...timed]
      .sort((a, b) => most(b) - most(a))
      .slice(0, MOST_LINES)
      .sort((a, b) => (key(a) < key(b) ? -1 : 1));
    this.panel.aside.textContent = shown.length
      ? `p95 of each ${format.WINDOWS[span.window]}${timed.length > shown.length ? `, the ${shown.length} slowest of ${timed.length}` : ""}`
      : "";
    if (!shown.length) return this.panel.nothing("No response times in this range.");
    if (!this.panel.body.contains(this.chart.root)) this.panel.show(this.chart.root);
    this.chart.show(
      span,
      shown.map((found, at) => ({
        name: several ? `${found.service}, ${found.region}` : found.region,
        values: found.response_ms_p95,
        tone: `series-${at}`,
      })),
    );
  }
}

export class Spaces {
  constructor() {
    this.panel = new Panel("spaces");
  }

  show({ spaces, rest, totals }) {
    if (!spaces.length) return this.panel.nothing("Nothing was added or removed in this range.");
    const most = Math.max(1, ...spaces.flatMap((space) => [space.bytes_added, space.bytes_removed]));
    const rows = spaces.map((space) =>
      line(foreign(space.space_id, { class: "id", title: space.space_id }), space, most),
    );
    if (rest)
      rows.push(
        line(element("span", { class: "quiet" }, `${format.count(rest.count)} more`), rest.totals, most, true),
      );
    rows.push([element("b", {}, "all"), element("span"), amount(totals, "added"), amount(totals, "removed")]);
    this.panel.show(
      table(
        "Bytes added to and removed from each space",
        [{ title: "space" }, { title: "" }, { title: "added", number: true }, { title: "removed", number: true }],
        rows,
      ),
    );
    this.panel.body.querySelector("th:nth-child(2)").append(element("span", { class: "unseen" }, "in proportion"));
  }
}

function line(name, of, most, plain = false) {
  const bars = plain
    ? element("span")
    : element(
        "span",
        { class: "bars", "aria-hidden": "true" },
        bar("added", of.bytes_added / most),
        bar("removed", of.bytes_removed / most),
      );
  return [name, bars, amount(of, "added"), amount(of, "removed")];
}

function bar(kind, share) {
  const made = element("span", { class: `bar ${kind}` });
  made.style.width = `${(100 * share).toFixed(2)}%`;
  return made;
}

function amount(of, what) {
  const bytes = of[`bytes_${what}`];
  return datum(
    bytes,
    bytes ? format.bytes(bytes) : "0",
    `${format.exactly(bytes, "bytes")} in ${format.exactly(of[`files_${what}`], "files")}`,
  );
}

export class Extractors {
  constructor() {
    this.panel = new Panel("extractors");
    this.chart = new Chart({
      label: "Runs by how they ended, in each window",
      kind: "stacked",
      value: format.count,
      whole: (values) => format.count(values.reduce((a, b) => a + (b ?? 0), 0)),
    });
  }

  show({ extractors, rest, totals, series }, span) {
    this.panel.aside.textContent = extractors.length ? `runs that ended, by ${format.WINDOWS[span.window]}` : "";
    if (!extractors.length) return this.panel.nothing("No extractor ran in this range.");
    const tones = { succeeded: "good", failed: "bad", skipped: "idle" };
    const rows = extractors.map((of) => [
      foreign(of.extractor, { class: "id", title: of.extractor }),
      ...counts(of),
      time(of.p50_s_today),
      time(of.p95_s_today),
      time(of.max_s),
    ]);
    const blank = () => element("span", { class: "quiet" }, "");
    if (rest)
      rows.push([
        element("span", { class: "quiet" }, `${format.count(rest.count)} more`),
        ...counts(rest.totals),
        blank(),
        blank(),
        blank(),
      ]);
    if (extractors.length > 1) rows.push([element("b", {}, "all"), ...counts(totals), blank(), blank(), blank()]);
    const columns = ["succeeded", "failed", "skipped", "p50 today", "p95 today", "longest"].map((title) => ({
      title,
      number: true,
    }));
    // The chart stays where it is: it may have the focus.
    if (!this.panel.body.contains(this.chart.root)) this.panel.show(this.chart.root, element("div"));
    this.chart.show(
      span,
      ["succeeded", "failed", "skipped"].map((name) => ({ name, values: series[name], tone: tones[name] })),
    );
    this.panel.body.lastElementChild.replaceWith(
      table("Runs of each extractor", [{ title: "extractor" }, ...columns], rows),
    );
  }
}

function counts(of) {
  const shown = (name) => datum(of[name], format.count(of[name]), format.exactly(of[name]));
  const failed = shown("failed");
  if (of.failed > 0) failed.classList.add("wrong");
  return [shown("succeeded"), failed, shown("skipped")];
}

const time = (seconds) =>
  seconds === null
    ? element("span", { class: "quiet" }, "–")
    : datum(seconds, format.seconds(seconds), `${seconds} s`);
