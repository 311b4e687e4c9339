// At a glance: one number each, with a word on it.

import { datum, element } from "./dom.js";
import * as format from "./format.js";

export function tiles(shown) {
  const { span } = shown;
  return [
    uptime(shown.uptime),
    response(shown.uptime, span),
    traffic(shown.activity),
    storage(shown.storage),
    runs(shown.extractors),
    agents(shown.agents),
  ]
    .filter((tile) => tile !== null)
    .map(({ title, value, note, wrong }) =>
      element(
        "div",
        { class: wrong ? "tile wrong" : "tile" },
        element("dt", {}, title),
        element("dd", {}, value),
        element("dd", { class: "quiet" }, note),
      ),
    );
}

const none = "–";

function uptime(found) {
  if (!found) return null;
  const known = found.services.filter(({ uptime_ratio: ratio }) => ratio !== null);
  const whole = known.filter(({ region }) => region === "all");
  const [worst] = (whole.length ? whole : known).sort((a, b) => a.uptime_ratio - b.uptime_ratio);
  if (!worst) return { title: "Uptime", value: none, note: "no checks" };
  const today = worst.uptime_ratio_today;
  return {
    title: whole.length > 1 ? `Uptime, lowest: ${worst.service}` : `Uptime of ${worst.service}`,
    value: datum(worst.uptime_ratio, format.percent(worst.uptime_ratio), String(worst.uptime_ratio)),
    note:
      today === null
        ? "nothing known today"
        : element("span", {}, "today ", datum(today, format.percent(today), String(today))),
    wrong: today !== null && today < 1,
  };
}

// The latest window that knows of one, and the slowest region in it: quantiles have no mean.
function response(found, span) {
  if (!found) return null;
  const length = (span.until - span.since) / span.window_s;
  for (let at = length - 1; at >= 0; at -= 1) {
    const there = found.services.filter(({ region, response_ms_p95: p95 }) => region !== "all" && p95[at] !== null);
    if (there.length) {
      const slowest = there.reduce((a, b) => (b.response_ms_p95[at] > a.response_ms_p95[at] ? b : a));
      const value = slowest.response_ms_p95[at];
      return {
        title: "Slowest response, p95",
        value: datum(value, format.milliseconds(value), `${value} ms`),
        note: `${slowest.region}, ${format.tick(span, span.since + at * span.window_s)}`,
      };
    }
  }
  return { title: "Response time, p95", value: none, note: "no checks" };
}

function traffic(found) {
  if (!found) return null;
  const of = (name) => found.actions.find(({ action }) => action === name)?.events ?? 0;
  const views = of("viewed") + of("page_viewed");
  return {
    title: "Views",
    value: datum(views, format.count(views), format.exactly(views)),
    note: `${format.count(of("downloaded"))} downloads`,
  };
}

function storage(found) {
  if (!found) return null;
  const { bytes_added: added = 0, bytes_removed: removed = 0 } = found.totals;
  return {
    title: "Added",
    value: datum(added, format.bytes(added), format.exactly(added, "bytes")),
    note: `${format.bytes(removed)} removed`,
  };
}

function runs(found) {
  if (!found) return null;
  const { succeeded = 0, failed = 0, skipped = 0 } = found.totals;
  const ended = succeeded + failed + skipped;
  const share = failed ? ` (${portion(failed / ended)})` : "";
  return {
    title: "Extractor runs",
    value: datum(ended, format.count(ended), format.exactly(ended)),
    note: `${format.count(failed)} failed${share}`,
    wrong: failed > 0,
  };
}

function portion(share) {
  return share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;
}

function agents(found) {
  if (!found || !found.length) return null;
  const up = found.filter((agent) => agent.up).length;
  const lag = Math.max(0, ...found.map((agent) => agent.lag_events ?? agent.lag_messages ?? 0));
  const unit = found.some((agent) => agent.lag_messages) ? "messages" : "events";
  return {
    title: "Agents up",
    value: datum(up, `${up} of ${found.length}`, undefined),
    note: lag ? `${format.count(lag)} ${unit} behind` : "nothing behind",
    wrong: found.some((agent) => agent.up === false),
  };
}
