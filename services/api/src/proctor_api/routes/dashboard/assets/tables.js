// The matrix of scenarios and test cases, and the table of results behind a cell or a point.

import { count, duration, element, moment, verdict } from "./words.js";

/** Draw the matrix. `choose(cell)` is called for a cell that was clicked. */
export function drawMatrix(matrix, choose) {
  const table = document.getElementById("matrix");
  const several = new Set(matrix.cases.map((one) => one.project)).size > 1;
  const found = new Map(matrix.cells.map((cell) => [key(cell.scenario, cell.project, cell.case), cell]));
  const head = element("tr", {}, element("td"), ...matrix.cases.map((one) => element("th", { scope: "col" },
    several ? element("span", {}, ...inParts(one.project)) : null, ...inParts(one.case))));
  const rows = matrix.scenarios.map((scenario) => element("tr", {},
    element("th", { scope: "row" }, ...inParts(scenario || "(no scenario)")),
    ...matrix.cases.map((one) => element("td", {}, cellOf(found.get(key(scenario, one.project, one.case)), choose)))));
  table.replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows));
}

/** A name that may wrap after each separator, and within a word only if it is too long. */
function inParts(name) {
  return name.split(/(?<=[_./:-])/).flatMap((part) => [part, element("wbr")]).slice(0, -1);
}

function key(...parts) {
  return JSON.stringify(parts);
}

function cellOf(cell, choose) {
  if (!cell) return element("span", { class: "cell blank", role: "img", "aria-label": "never run here" });
  const last = verdict(cell.passed);
  const trust = cell.trust ? `${Math.round(cell.trust.value * 100)} %` : "–";
  const why = cell.trust ? `trust ${trust}: ${cell.trust.passed} of the last ${cell.trust.known} passed` : "no verdict to trust";
  const words = `${cell.case} on ${cell.scenario || "no scenario"}: ${last.word}, ${moment(cell.at)}; ${why}`;
  return element("button", { type: "button", class: `cell ${last.kind}`, title: words, "aria-label": words, onclick: () => choose(cell) },
    last.sign, element("small", { "aria-hidden": "true" }, trust));
}

/** Fill the table of results; each row has links to the result, its run and its log. */
export function drawResults(results) {
  document.querySelector("#results tbody").replaceChildren(...results.items.map(rowOf));
}

function rowOf(result) {
  const last = verdict(result.passed);
  const ways = [element("a", { href: `../api/v1/results/${encodeURIComponent(result.id)}` }, "result")];
  if (result.run) {
    const run = `../v1/runs/${encodeURIComponent(result.run)}`;
    ways.push(element("a", { href: run }, "run"), element("a", { href: `${run}/logs${result.step ? `?step=${encodeURIComponent(result.step)}` : ""}` }, "log"));
  }
  return element("tr", {},
    element("td", { class: "verdict" }, element("span", { class: `badge ${last.kind}` }, `${last.sign} ${result.criteria || last.word}`)),
    element("td", { class: "case" }, result.case, element("span", { class: "quiet" }, result.project)),
    element("td", {}, result.scenario || "", result.version ? element("span", { class: "quiet" }, result.version) : null),
    element("td", {}, result.pod, result.installer ? element("span", { class: "quiet" }, result.installer) : null),
    element("td", { class: "when" }, result.at ? moment(result.at) : result.start_date || "–"),
    element("td", { class: "number", "data-word": "took" }, duration(result.seconds)),
    element("td", { class: "number", "data-word": "trust sent" }, String(Math.round(result.trust_sent * 1000) / 1000)),
    element("td", { class: "see" }, ...ways));
}

/** How many results are shown. */
export function howMany(results) {
  return results.more ? `the newest ${count(results.items.length)}` : `${count(results.items.length)} in all`;
}
