// <time datetime> becomes local and relative, a date after a week; the exact time shows on hover.
// With data-until it becomes a range, such as 19:39–19:41.
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const exact = new Intl.DateTimeFormat("en-GB", { dateStyle: "full", timeStyle: "medium" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });
const minutes = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });
const UNITS = [
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
];

export function ago(moment, now = Date.now()) {
  const seconds = (moment - now) / 1000;
  if (Math.abs(seconds) < 45) return seconds > 0 ? "in less than a minute" : "just now";
  if (Math.abs(seconds) > 7 * 86_400) return day.format(moment);
  for (const [unit, size] of UNITS) {
    if (Math.abs(seconds) >= size * 0.95) return relative.format(Math.round(seconds / size), unit);
  }
  return relative.format(Math.round(seconds / 60), "minute");
}

/** Return two moments as a range, which names a day once that they share. */
export function range(since, until) {
  return minutes.formatRange(since, until);
}

export function localTimes(root) {
  for (const element of root.querySelectorAll?.("time[datetime]") ?? []) {
    const moment = new Date(element.dateTime);
    if (Number.isNaN(moment.getTime())) continue;
    const until = element.dataset.until ? new Date(element.dataset.until) : null;
    element.textContent = until ? range(moment, until) : ago(moment);
    element.title = until ? exact.formatRange(moment, until) : exact.format(moment);
  }
}
