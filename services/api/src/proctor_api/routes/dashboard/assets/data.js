// Requests to the api. URLs are relative, so that the page also works under a prefix.

export const FILTERS = ["project", "case", "scenario", "installer", "pod", "version"];

let newest = 0;

/** JSON of a dashboard route; null if a later `turn` has begun meanwhile. Throws an Error with a message for users. */
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

/** Begin a new turn: answers to earlier ones are ignored. */
export function begin() {
  newest += 1;
  return newest;
}

/** Period and filters in the URL of the page. */
export function fromAddress() {
  const given = new URLSearchParams(window.location.search);
  const chosen = { days: given.get("days") || "30", by: given.get("by") || "" };
  for (const name of FILTERS) chosen[name] = given.get(name) || "";
  return chosen;
}

/** Write them into the URL, so that it can be bookmarked and shared. */
export function toAddress(chosen) {
  const said = new URLSearchParams();
  for (const [name, value] of Object.entries(chosen)) if (value && !(name === "days" && value === "30")) said.set(name, value);
  const query = said.toString();
  window.history.replaceState(null, "", query ? `?${query}` : window.location.pathname);
}
