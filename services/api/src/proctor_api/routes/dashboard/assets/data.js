// What the page asks the api for. Addresses are relative, so that the page works under a prefix too.

export const FILTERS = ["project", "case", "scenario", "installer", "pod", "version"];

let newest = 0;

/** JSON from a dashboard route; null when a later `turn` has begun meanwhile. Throws Error with words for people. */
export async function ask(path, query, turn) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const answer = await fetch(`../v1/dashboard/${path}?${new URLSearchParams(given)}`, { headers: { Accept: "application/json" } });
  if (answer.status === 401) {
    window.location.assign(`../login?next=dashboard${window.location.search.replace("?", "&")}`);
    return new Promise(() => {}); // the browser is leaving
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.detail || `the api answered ${answer.status}`);
  return turn === undefined || turn === newest ? body : null;
}

/** A new turn: answers to older ones no longer count. */
export function begin() {
  newest += 1;
  return newest;
}

/** Period and filters as the page's address says. */
export function fromAddress() {
  const given = new URLSearchParams(window.location.search);
  const chosen = { days: given.get("days") || "30", by: given.get("by") || "" };
  for (const name of FILTERS) chosen[name] = given.get(name) || "";
  return chosen;
}

/** Write them into the address, so that it can be kept and passed on. */
export function toAddress(chosen) {
  const said = new URLSearchParams();
  for (const [name, value] of Object.entries(chosen)) if (value && !(name === "days" && value === "30")) said.set(name, value);
  const query = said.toString();
  window.history.replaceState(null, "", query ? `?${query}` : window.location.pathname);
}
