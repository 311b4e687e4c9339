// Numbers as a person reads them: 1.2 GiB, 3 m 4 s, 99.95 %. All times are UTC.

const GROUPED = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

export function count(number) {
  if (Math.abs(number) >= 1e6) return scaled(number, 1000, ["", " k", " M", " G", " T", " P"]);
  return GROUPED.format(number);
}

export function exactly(number, unit = "") {
  return GROUPED.format(number) + (unit && ` ${unit}`);
}

export function bytes(number) {
  return scaled(number, 1024, [" B", " KiB", " MiB", " GiB", " TiB", " PiB"]);
}

function scaled(number, base, units) {
  let value = number;
  let at = 0;
  while (Math.abs(value) >= base && at < units.length - 1) {
    value /= base;
    at += 1;
  }
  // 1023.97 MiB is not 1024.0 MiB.
  if (at > 0 && Math.abs(value) >= base - 0.05 && at < units.length - 1) {
    value /= base;
    at += 1;
  }
  return (at === 0 ? String(Math.round(value)) : value.toFixed(1)) + units[at];
}

export function seconds(given) {
  if (given < 1) return `${Math.round(given * 1000)} ms`;
  if (given < 9.95) return `${given.toFixed(1)} s`;
  const whole = Math.round(given);
  if (whole < 60) return `${whole} s`;
  const parts = [
    [Math.floor(whole / 86400), "d"],
    [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "m"],
    [whole % 60, "s"],
  ];
  // The two largest: 3 m 4 s, 2 h 5 m.
  const first = parts.findIndex(([number]) => number > 0);
  return parts
    .slice(first, first + 2)
    .filter(([number]) => number > 0)
    .map(([number, unit]) => `${number} ${unit}`)
    .join(" ");
}

export function milliseconds(given) {
  return given < 10 && given > 0 ? `${given.toFixed(1)} ms` : seconds(given / 1000);
}

// Rounded down: what was down for a moment was not up for 100 %.
export function percent(ratio) {
  if (ratio === 1) return "100 %";
  const digits = ratio >= 0.999 ? 3 : 2;
  const scale = 10 ** digits;
  return `${(Math.floor(ratio * 100 * scale + 1e-9) / scale).toFixed(digits)} %`;
}

const parts = (options) => new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", ...options });
const TIME = parts({ hour: "2-digit", minute: "2-digit" });
const TIME_S = parts({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = parts({ day: "numeric", month: "short" });
const WEEKDAY = parts({ weekday: "short", day: "numeric" });

export const clock = (ms) => TIME_S.format(ms);
export const dayAndClock = (ms) => `${DAY.format(ms)}, ${TIME_S.format(ms)}`;

// A label of the time axis, short and without repeating what is clear.
export function tick(span, s) {
  const ms = s * 1000;
  if (span.window_s >= 86400) return DAY.format(ms);
  if (span.range === "7d") return s % 86400 === 0 ? WEEKDAY.format(ms) : TIME.format(ms);
  return TIME.format(ms);
}

// The same where there is room for four labels only.
export const edge = (span, s) => (span.range === "7d" ? WEEKDAY.format(s * 1000) : tick(span, s));

// A window, whole: 22:00–23:00.
export function windowAt(span, at) {
  const start = (span.since + at * span.window_s) * 1000;
  const end = start + span.window_s * 1000;
  if (span.window_s >= 86400) return DAY.format(start);
  return `${span.range === "7d" ? `${WEEKDAY.format(start)}, ` : ""}${TIME.format(start)}–${TIME.format(end)}`;
}

export const WINDOWS = { "1m": "minute", "1h": "hour", "1d": "day" };
export const RANGES = { "1h": "last hour", "24h": "last 24 hours", "7d": "last 7 days", "30d": "last 30 days" };
