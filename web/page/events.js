// How it is at this moment: agents, dead letters, latest events.

import { datum, element, foreign, Panel, table } from "./dom.js";
import * as format from "./format.js";

const OURS = new Set(["position", "received", "type", "time"]);

export class Agents {
  constructor() {
    this.panel = new Panel("agents");
  }

  show(agents, span) {
    if (!agents.length) {
      this.panel.nothing("None has run yet. `eventsink worker` runs them, or `eventsink up` with everything else.");
      return;
    }
    const here = agents.some(({ outcomes }) => Object.keys(outcomes).length);
    const rows = agents.map((agent) => {
      const state = agent.up === false ? "stopped" : agent.up ? "up" : "unknown";
      const lag = lagOf(agent);
      const dead = (agent.outcomes.dead ?? 0) + (agent.outcomes.late ?? 0);
      const taken = Object.values(agent.outcomes).reduce((a, b) => a + b, 0);
      return [
        element("span", { class: `agent ${state}` }, agent.agent),
        state,
        datum(lag.behind ?? 0, lag.behind === null ? "–" : lag.said, undefined),
        // Another process counts for itself: its /metrics tells.
        here ? datum(taken, format.count(taken), format.exactly(taken)) : "–",
        here
          ? datum(dead, format.count(dead), `${agent.outcomes.late ?? 0} late, ${agent.outcomes.dead ?? 0} dead`)
          : "–",
      ];
    });
    const seen = agents.map(({ watermark }) => watermark).filter((watermark) => watermark !== null);
    this.panel.aside.textContent = seen.length ? `seen up to ${upTo(Math.min(...seen) * 1000, span.now)}` : "";
    this.panel.show(
      table(
        here ? "Agents of this process" : "Agents of other processes",
        [
          { title: "agent" },
          { title: "state" },
          { title: "lag", number: true },
          { title: "since start", number: true },
          { title: "late, dead", number: true },
        ],
        rows,
      ),
    );
  }
}

// In events, and of when they are, where the agent runs in this process; else in messages of the log.
export function lagOf({ lag_events, lag_seconds, lag_messages }) {
  const behind = lag_events ?? lag_messages;
  if (!behind) return { behind, said: "none" };
  const said = `${format.count(behind)} ${lag_events === null ? "message" : "event"}${behind === 1 ? "" : "s"}`;
  return { behind, said: lag_seconds === null ? said : `${said}, ${format.seconds(lag_seconds)}` };
}

const upTo = (ms, now) => (Math.abs(now - ms) < 86400_000 ? format.clock(ms) : format.dayAndClock(ms));

export class Dead {
  constructor() {
    this.panel = new Panel("dead");
  }

  show({ count, latest }) {
    this.panel.aside.replaceChildren(count ? datum(count, format.count(count), format.exactly(count)) : "");
    if (!count) return this.panel.nothing("None. What cannot be read would be kept here, with the reason.");
    const items = latest.map((letter) =>
      element(
        "li",
        {},
        element("time", { datetime: new Date(letter.received).toISOString() }, format.dayAndClock(letter.received)),
        foreign(letter.reason, { class: "reason" }),
      ),
    );
    this.panel.show(
      element("ul", { class: "letters" }, ...items),
      element(
        "p",
        { class: "quiet fine" },
        element("code", {}, "eventsink dead list"),
        " shows all, ",
        element("code", {}, "eventsink dead retry"),
        " tries them again.",
      ),
    );
  }
}

export class Events {
  constructor() {
    this.panel = new Panel("events");
  }

  show(events) {
    if (!events.length) return this.panel.nothing("None yet.");
    this.panel.show(element("ol", { class: "latest" }, ...events.map(item)));
  }
}

/** ``min 0.3, avg 0.5`` of an object. */
function plain(value) {
  if (value === null || typeof value !== "object") return String(value);
  if (Array.isArray(value)) return value.map(plain).join(", ");
  return Object.entries(value).map(([name, inner]) => `${name} ${plain(inner)}`).join(", ");
}

function item(event) {
  const at = Date.parse(event.time);
  const details = Object.entries(event)
    .filter(([name]) => !OURS.has(name))
    // Why something is down, before ids and what else the line has no room for.
    .sort(([one], [other]) => (other === "problem") - (one === "problem"))
    .map(([name, value]) =>
      element("span", { class: name === "problem" ? name : undefined }, element("i", {}, foreign(name)), foreign(plain(value))),
    );
  return element(
    "li",
    { "data-position": event.position },
    element("time", { datetime: event.time }, Number.isNaN(at) ? String(event.time) : format.dayAndClock(at)),
    foreign(event.type, { class: "type" }),
    element("span", { class: "details" }, ...details),
  );
}
