// Numbers, times and durations as text for users, and elements that are made without parsing text as HTML.

/** An element with attributes and children; strings become text nodes. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined) continue;
    if (name === "onclick") made.addEventListener("click", value);
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function count(value) {
  return value.toLocaleString("en");
}

export function percent(part, whole) {
  return whole ? `${share((100 * part) / whole)} %` : "–";
}

export function share(value) {
  return value === 100 || value === 0 ? String(value) : Math.min(99.9, Math.max(0.1, value)).toFixed(1);
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return seconds === 0 ? "0 s" : `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${Number(seconds.toFixed(1))} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return both(Math.floor(whole / 60), "min", whole % 60, "s");
  if (whole < 86400) return both(Math.floor(whole / 3600), "h", Math.floor((whole % 3600) / 60), "min");
  return both(Math.floor(whole / 86400), "d", Math.floor((whole % 86400) / 3600), "h");
}

function both(large, largeUnit, small, smallUnit) {
  return small ? `${large} ${largeUnit} ${small} ${smallUnit}` : `${large} ${largeUnit}`;
}

const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });
const MINUTE = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

/** A time: with a bucket of a day or more only the date. */
export function moment(at, bucketSeconds = 0) {
  return (bucketSeconds >= 86400 ? DAY : MINUTE).format(new Date(at));
}

export function verdict(passed) {
  if (passed === true) return { kind: "passed", sign: "✓", word: "passed" };
  if (passed === false) return { kind: "failed", sign: "✕", word: "failed" };
  return { kind: "other", sign: "?", word: "no verdict" };
}
