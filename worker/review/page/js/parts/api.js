/** Talks to the desk: one place for the CSRF token, errors and a lost connection. */

export class Refused extends Error {
  /** The desk said no: `status`, `kind` (a word) and `message` (a sentence). */
  constructor(problem, status) {
    super(problem.detail ?? `the desk answered ${status}`);
    this.status = status;
    this.kind = (problem.type ?? "").split(":").pop();
    this.problem = problem;
  }
}

export class Unreachable extends Error {
  /** Nobody answered, or a proxy answered for a desk that is away. */
}

let csrf = "";
/** For whom the page was drawn; nobody before they have signed in. */
let mine = null;
const watchers = new Set();
let reachable = true;

export function useToken(token, me = null) {
  csrf = token;
  mine = me;
}

/** Calls `watcher(isReachable)` whenever that changes, until the returned function is called. */
export function watchConnection(watcher) {
  watchers.add(watcher);
  return () => watchers.delete(watcher);
}

export function isReachable() {
  return reachable;
}

export function setReachable(now) {
  if (now === reachable) return;
  reachable = now;
  for (const watcher of watchers) watcher(now);
}

/** Milliseconds without a hand on the page, after which its requests do not keep the session. */
const UNATTENDED = 60_000;
let touched = performance.now();
for (const kind of ["keydown", "pointerdown", "pointermove", "wheel"]) addEventListener(kind, () => { touched = performance.now(); }, { capture: true, passive: true });

/** Refusals that another tab may be the reason of: it signed in anew, as somebody else, or with another role. */
const ELSEWHERE = new Set(["csrf", "role"]);
const AWAY = new Set([502, 503, 504]);
const PATIENCE = 15_000;

/** Raises Refused or Unreachable, the latter also when there is no answer for `patience` milliseconds. */
export async function call(method, path, body, { keepalive = false, patience = PATIENCE, again = true } = {}) {
  const headers = { accept: "application/json" };
  const token = csrf;
  const whose = mine?.user;
  if (method !== "GET") headers["x-csrf-token"] = token;
  if (performance.now() - touched > UNATTENDED) headers["x-unattended"] = "1";
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), credentials: "same-origin", keepalive, signal: AbortSignal.timeout(patience) });
  } catch (error) {
    setReachable(false);
    throw new Unreachable(error.message);
  }
  if (AWAY.has(response.status)) {
    setReachable(false);
    throw new Unreachable(`status ${response.status}`);
  }
  setReachable(true);
  if (response.status === 204) return null;
  const data = await response.json().catch(() => ({}));
  if (response.ok) return data;
  if (response.status === 401 && data.type === "urn:sluice:problem:not-signed-in") document.dispatchEvent(new Event("signed-out"));
  const refused = new Refused(data, response.status);
  // What one person asked is never asked again for another.
  if (again && whose && whose === mine?.user && ELSEWHERE.has(refused.kind) && (await renewed(token))) return call(method, path, body, { keepalive, patience, again: false });
  throw refused;
}

/** Whether the session has another token than the one that was `sent`, and learns it. Raises Unreachable where the page is somebody else's now. */
export async function renewed(sent = csrf) {
  const me = await call("GET", "/v1/session", undefined, { again: false });
  if (!mine || me.user !== mine.user || me.role !== mine.role) {
    document.dispatchEvent(new CustomEvent("session-changed", { detail: me }));
    throw new Unreachable("the page is drawn anew");
  }
  csrf = me.csrf;
  return csrf !== sent;
}

export const get = (path, options) => call("GET", path, undefined, options);
export const post = (path, body = {}) => call("POST", path, body);
