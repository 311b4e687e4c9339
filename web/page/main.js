// The page: what is shown where, and what happens when something changes.

import { People, Traffic } from "./activity.js";
import { available } from "./charts.js";
import { element } from "./dom.js";
import { Agents, Dead, Events } from "./events.js";
import { Extractors, Response, Spaces, Uptime } from "./figures.js";
import * as format from "./format.js";
import { Live } from "./live.js";
import { tiles } from "./tiles.js";

const EXAMPLE = '{"type":"storage.file_uploaded","file_id":"f1","space_id":"demo","bytes":1024}';

// By panel: the member of the document that it shows.
const PANELS = [
  ["uptime", new Uptime()],
  ["uptime", new Response()],
  ["activity", new Traffic()],
  ["activity", new People()],
  ["storage", new Spaces()],
  ["extractors", new Extractors()],
  ["agents", new Agents()],
  ["dead", new Dead()],
  ["events", new Events()],
];
// By panel: the rollup whose rows it is made of.
const ROLLUPS = {
  uptime: "service_uptime",
  response: "service_uptime",
  traffic: "resource_traffic",
  people: "user_activity",
  spaces: "space_storage",
  extractors: "extractor_runtime",
};
const WITH_RANGE = new Set(["uptime", "activity", "storage", "extractors"]);

// What was last known of each member, of which range, and when.
const known = {};
let connected = false;
// Which windows are shown: when they move on, everything that has a range is shown anew.
let windows = "";

function show(found, changed) {
  const now = `${found.span.range} ${found.span.since}`;
  const moved = now !== windows;
  windows = now;
  for (const member of new Set(PANELS.map(([name]) => name))) {
    if (found[member] !== null) known[member] = { value: found[member], span: found.span };
  }
  const news = new Set(changed);
  const away = found.away ?? {};
  for (const [member, view] of PANELS) {
    const last = known[member];
    // Figures of another range would be taken for those of this one.
    const usable = last && (!WITH_RANGE.has(member) || last.span.range === found.span.range);
    if (news.has(member) || (moved && WITH_RANGE.has(member))) {
      if (usable) view.show(last.value, last.span);
      else view.panel.show();
    }
    view.panel.away(!away[member] ? "" : usable ? `as of ${format.clock(last.span.now)}` : "not available now");
  }
  const shown = { span: found.span };
  for (const [member, last] of Object.entries(known)) {
    shown[member] = !WITH_RANGE.has(member) || last.span.range === found.span.range ? last.value : null;
  }
  if (moved) PANELS.forEach(([, view]) => link(view.panel, found.span));
  const empty = isEmpty(found);
  document.body.classList.toggle("empty", empty);
  document.getElementById("welcome").hidden = !empty;
  document.getElementById("sending").hidden = empty;
  document.getElementById("tiles").replaceChildren(...(empty ? [] : tiles(shown)));
  state(found);
}

// The rows themselves, for a spreadsheet.
function link(panel, span) {
  const rollup = ROLLUPS[panel.root.id];
  if (!rollup) return;
  const place = panel.root.querySelector(".csv") ?? element("a", { class: "csv" }, "csv");
  const query = new URLSearchParams({
    window: span.window,
    since: new Date(span.since * 1000).toISOString(),
    format: "csv",
  });
  place.href = `/v1/rollups/${rollup}?${query}`;
  place.setAttribute("aria-label", `${panel.root.querySelector("h2").textContent}, as CSV`);
  panel.root.querySelector(".head").append(place);
}

// Nothing at all, as far as is known: an old event outside of the range is something.
function isEmpty(found) {
  return (
    found.events?.length === 0 &&
    !found.uptime?.services.length &&
    !found.storage?.spaces.length &&
    !found.extractors?.extractors.length &&
    !found.activity?.actions.length &&
    !found.away?.events
  );
}

let asOf = null;

function state(found) {
  const { accepting, wrong } = found.ready ?? { accepting: !found.away?.ready, wrong: {} };
  const reasons = new Set(Object.values(found.away ?? {}));
  const said = Object.entries(wrong).map(([name, reason]) => `${name}: ${reason}`);
  const lines = [];
  if (said.length) lines.push(`${accepting ? "Stopped:" : "Not ready."} ${said.join(" · ")}`);
  if (reasons.size) lines.push(`Some figures are old or missing: ${[...reasons].join(" · ")}`);
  asOf = found.span.now;
  text("trouble", lines.join("\n"));
  document.getElementById("trouble").hidden = !lines.length;
  connection(connected, !accepting);
}

function connection(is, wrong = document.getElementById("state").classList.contains("wrong")) {
  connected = is;
  const pill = document.getElementById("state");
  pill.classList.toggle("wrong", wrong);
  pill.classList.toggle("lost", !is);
  const said = is
    ? wrong
      ? "Not ready"
      : "Accepting events"
    : asOf === null
      ? "No connection, trying again"
      : `Connection lost, trying again. Figures of ${format.clock(asOf)}`;
  text("state", said);
  if (asOf !== null) text("asof", `As of ${format.dayAndClock(asOf)}. All times are UTC.`);
}

// Set only when it changes: a status is read aloud.
function text(id, said) {
  const place = document.getElementById(id);
  if (place.textContent !== said) place.textContent = said;
}

const live = new Live(show, (is) => connection(is));

function choose(range) {
  document.documentElement.dataset.range = range;
  history.replaceState(null, "", range === "24h" ? location.pathname : `?range=${range}`);
  live.watch(range);
}

function start() {
  const asked = new URLSearchParams(location.search).get("range");
  const inputs = [...document.querySelectorAll("#ranges input")];
  const chosen = inputs.find(({ value }) => value === asked) ?? inputs.find(({ value }) => value === "24h");
  chosen.checked = true;
  for (const input of inputs) input.addEventListener("change", () => choose(input.value));
  document.getElementById("chartless").hidden = available();
  for (const place of document.querySelectorAll(".send")) {
    place.textContent = `curl ${location.origin}/v1/events \\\n  -H "Authorization: Bearer $KEY" \\\n  -H "Content-Type: application/json" \\\n  -d '${EXAMPLE}'`;
  }
  for (const button of document.querySelectorAll(".copy")) copying(button);
  themes(document.getElementById("theme"));
  choose(chosen.value);
}

function copying(button) {
  if (!navigator.clipboard) {
    button.hidden = true; // only where the browser trusts the connection
    return;
  }
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.parentElement.querySelector("code").textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
}

function themes(button) {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const told = () => {
    button.setAttribute("aria-pressed", String(dark()));
    dispatchEvent(new Event("theme"));
  };
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try {
      localStorage.setItem("theme", root.dataset.theme);
    } catch {
      // Storage is forbidden: it holds until the page is left.
    }
    told();
  });
  system.addEventListener("change", told);
  told();
}

start();
