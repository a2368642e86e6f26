// The two charts over time, drawn by Chart.js.

import { count, duration, element, moment, share } from "./words.js";

const MOST_COLOURS = 8;
const drawn = {};

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Draw both charts and their common legend. `choose(series, point)` is called for a point that was clicked. */
export function drawTrend(trend, choose) {
  const names = trend.series.map((series) => series.name);
  legend(names, trend);
  draw("rate", trend, (point) => (point.passed + point.failed ? (100 * point.passed) / (point.passed + point.failed) : null), {
    min: 0, max: 100, ticks: { stepSize: 25 },
  }, (value, point) => `${share(value)} % of ${count(point.passed + point.failed)}`, choose);
  draw("seconds", trend, (point) => point.seconds, {
    ...durations(trend), ticks: { stepSize: durations(trend).stepSize, callback: (value) => duration(value) },
  }, (value, point) => `${duration(value)} (${count(point.runs)})`, choose);
}

const STEPS = [0.1, 0.5, 1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];

/** A scale of durations with lines at round times. */
function durations(trend) {
  const most = Math.max(0.1, ...trend.series.flatMap((series) => series.points.map((point) => point.seconds || 0)));
  const stepSize = STEPS.find((step) => most / step <= 5) || Math.ceil(most / 5 / 86400) * 86400;
  return { min: 0, max: Math.ceil((most * 1.02) / stepSize) * stepSize, stepSize };
}

/** The unit of the time axis. Chart.js leaves out labels that do not fit. */
function unitOf(trend) {
  if (trend.bucket_seconds > 86400) return "month";
  return Date.parse(trend.to) - Date.parse(trend.from) < 2 * 86400e3 ? "hour" : "day";
}

function legend(names, trend) {
  const list = document.getElementById("legend");
  const grouped = !(names.length === 1 && names[0] === null);
  list.replaceChildren(...(grouped ? names.map((name, index) => element("li", {},
    element("span", { class: `swatch s${index % MOST_COLOURS}`, "aria-hidden": "true" }), named(name))) : []));
  if (trend.left_off) list.append(element("li", { class: "quiet" }, `and ${count(trend.left_off)} more with fewer results`));
}

function named(name) {
  return name === null || name === "" ? "(none)" : name;
}

function draw(id, trend, read, scale, tell, choose) {
  const ink = colour("quiet");
  const line = colour("line");
  const datasets = trend.series.map((series, index) => ({
    label: series.name === null && trend.series.length === 1 ? "all" : named(series.name),
    data: series.points.map((point) => ({ x: Date.parse(point.at), y: read(point), point })).filter((point) => point.y !== null),
    borderColor: colour(`s${index % MOST_COLOURS}`),
    backgroundColor: colour(`s${index % MOST_COLOURS}`),
    borderDash: index >= MOST_COLOURS ? [5, 4] : [],
    clip: 8, borderWidth: 2, pointRadius: 3, pointHoverRadius: 6, pointHitRadius: 12, tension: 0.25, cubicInterpolationMode: "monotone",
  }));
  if (drawn[id]) drawn[id].destroy();
  drawn[id] = new window.Chart(document.getElementById(id), {
    type: "line",
    data: { datasets },
    options: {
      animation: false, responsive: true, maintainAspectRatio: false, parsing: false, normalized: true,
      interaction: { mode: "nearest", intersect: false },
      onClick: (_event, found) => {
        if (found.length) choose(trend.series[found[0].datasetIndex], datasets[found[0].datasetIndex].data[found[0].index].point);
      },
      onHover: (event, found) => { event.native.target.style.cursor = found.length ? "pointer" : "default"; },
      scales: {
        x: {
          type: "time", min: Date.parse(trend.from), max: Date.parse(trend.to),
          time: { unit: unitOf(trend), displayFormats: { hour: "HH:mm", day: "d MMM", week: "d MMM", month: "MMM yyyy", year: "yyyy" } },
          grid: { display: false }, border: { color: line }, ticks: { color: ink, maxRotation: 0, autoSkipPadding: 18 },
        },
        y: { ...scale, grid: { color: line }, border: { display: false }, ticks: { color: ink, ...scale.ticks } },
      },
      plugins: {
        legend: { display: false },
        tooltip: {
          displayColors: datasets.length > 1, padding: 10,
          callbacks: {
            title: (items) => (items.length ? moment(items[0].parsed.x, trend.bucket_seconds) : ""),
            label: (item) => `${datasets.length > 1 ? `${item.dataset.label}: ` : ""}${tell(item.parsed.y, item.raw.point)}`,
          },
        },
      },
    },
  });
}
