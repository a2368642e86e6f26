// The results page: filters, figures, charts, matrix, results. A change of a filter redraws everything.

import { drawTrend } from "./charts.js";
import { FILTERS, ask, begin, fromAddress, toAddress } from "./data.js";
import { drawMatrix, drawResults, howMany } from "./tables.js";
import { count, duration, element, moment, percent } from "./words.js";

const form = document.getElementById("filters");
const by = document.getElementById("by");
let chosen = fromAddress();
let trend = null;

function show(id, on) {
  document.getElementById(id).hidden = !on;
}

function put(id, text) {
  document.getElementById(id).textContent = text;
}

function notice(text) {
  put("notice", text);
  show("notice", text !== "");
}

function within() {
  const { by: _by, ...filters } = chosen;
  return filters;
}

/** Fill the filters with their values. A chosen value that no longer exists stays, so that it can be cleared. */
function offer(options) {
  for (const name of FILTERS) {
    const select = form.elements.namedItem(name);
    const known = options[name].includes(chosen[name]) || !chosen[name] ? options[name] : [chosen[name], ...options[name]];
    select.replaceChildren(element("option", { value: "" }, "all"), ...known.map((value) => element("option", { value }, value)));
    select.value = chosen[name];
    select.classList.toggle("set", chosen[name] !== "");
  }
  const days = form.elements.namedItem("days");
  if (![...days.options].some((option) => option.value === chosen.days)) chosen.days = "30";
  days.value = chosen.days;
  by.value = chosen.by;
  if (by.selectedIndex < 0) by.value = chosen.by = "";
}

function tiles(sum) {
  put("tile-runs", count(sum.runs));
  put("tile-span", sum.newest ? `last: ${moment(sum.newest)}` : "");
  put("tile-rate", percent(sum.passed, sum.passed + sum.failed));
  put("tile-passed", `${count(sum.passed)} passed`);
  put("tile-failed", count(sum.failed));
  const unknown = sum.runs - sum.passed - sum.failed;
  put("tile-unknown", unknown ? `${count(unknown)} without a verdict` : "");
  put("tile-seconds", duration(sum.seconds));
}

const FEW = 20;
const MANY = 200;

async function showResults(query, words, moved, limit = FEW) {
  const results = await ask("results", { ...within(), ...query, limit });
  drawResults(results);
  show("more", results.more && limit < MANY);
  document.getElementById("more").onclick = () => showResults(query, words, false, MANY)
    .then(() => show("latest", moved))
    .catch((error) => notice(error.message));
  put("results-of", `${words}: ${howMany(results)}.`);
  show("latest", moved);
  if (moved) document.getElementById("results-card").scrollIntoView({ block: "start", behavior: "smooth" });
}

function latest() {
  return showResults({}, "The latest", false).catch((error) => notice(error.message));
}

function ofPoint(series, point) {
  const to = new Date(Date.parse(point.at) + trend.bucket_seconds * 1000).toISOString();
  const only = trend.by && series.name !== null ? { [trend.by]: series.name } : {};
  const words = `${only[trend.by] ? `${series.name}, ` : ""}${moment(point.at, trend.bucket_seconds)}`;
  showResults({ from: point.at, to, ...only }, words, true).catch((error) => notice(error.message));
}

function ofCell(cell) {
  const query = { project: cell.project, case: cell.case };
  if (cell.scenario) query.scenario = cell.scenario;
  showResults(query, `${cell.case} on ${cell.scenario || "no scenario"}`, true).catch((error) => notice(error.message));
}

async function refresh() {
  const turn = begin();
  document.body.dataset.busy = String(turn);
  toAddress(chosen);
  try {
    const [options, lines, matrix] = await Promise.all([
      ask("options", {}, turn),
      ask("trend", { ...within(), by: chosen.by }, turn),
      ask("matrix", within(), turn),
    ]);
    if (!options || !lines || !matrix) return;
    trend = lines;
    offer(options);
    show("leave", options.session);
    const any = lines.sum.runs > 0;
    show("filters", !options.empty);
    show("empty", options.empty);
    show("none", !options.empty && !any);
    show("board", any);
    notice(any && lines.truncated ? `Only the newest ${count(lines.sum.runs)} results are used. Choose a shorter period or a filter to see others.` : "");
    if (!any) return;
    tiles(lines.sum);
    drawTrend(lines, ofPoint);
    drawMatrix(matrix, ofCell);
    show("matrix-more", matrix.truncated);
    put("looked-back", String(matrix.looked_back));
    await latest();
    document.body.dataset.drawn = String(turn);
  } catch (error) {
    notice(`The results cannot be shown: ${error.message}`);
  } finally {
    if (document.body.dataset.busy === String(turn)) delete document.body.dataset.busy;
  }
}

form.addEventListener("change", () => {
  for (const name of ["days", ...FILTERS]) chosen[name] = form.elements.namedItem(name).value;
  refresh();
});
form.addEventListener("submit", (event) => event.preventDefault());
by.addEventListener("change", () => {
  chosen.by = by.value;
  refresh();
});

function clear(days) {
  chosen = { ...chosen, days };
  for (const name of FILTERS) chosen[name] = "";
  refresh();
}

document.getElementById("clear").addEventListener("click", () => clear("30"));
document.getElementById("widen").addEventListener("click", () => clear("3650"));
document.getElementById("latest").addEventListener("click", latest);
document.getElementById("leave").addEventListener("click", async () => {
  await fetch("../v1/session", { method: "DELETE" });
  window.location.assign("../login");
});
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  if (trend) drawTrend(trend, ofPoint);
});

refresh();
