/** Requests to the desk: the CSRF token, the kinds of error, and whether the desk can be reached. */

/**
 * @typedef {{ type?: string, detail?: string, status?: number, [more: string]: any }} ProblemBody an RFC 9457 problem
 * @typedef {{ user: string, role: string, by: string, csrf: string }} Me
 * @typedef {{ keepalive?: boolean, patience?: number, again?: boolean, signal?: AbortSignal }} CallOptions
 */

/** The desk refused: `status`, `kind` (a word for programs) and `message` (a sentence for people). */
export class Refused extends Error {
  /**
   * @param {ProblemBody} problem
   * @param {number} status
   */
  constructor(problem, status) {
    super(problem.detail ?? `the desk answered ${status}`);
    this.status = status;
    this.kind = (problem.type ?? "").split(":").pop() ?? "";
    this.problem = problem;
  }
}

/** The desk answered that it cannot do this now, e.g. while its index is built. The same request may succeed later. */
export class NotReady extends Refused {}

/** No answer, or an answer by a proxy in front of a desk that is down. */
export class Unreachable extends Error {}

/** Whether the same request can succeed later: no answer, a desk that is not ready, or a session that has ended. */
export function isPassing(/** @type {any} */ error) {
  return error instanceof Unreachable || error instanceof NotReady || (error instanceof Refused && error.status === 401);
}

/** Kinds of refusal after which the same request may succeed, whatever status carries them. */
const NOT_READY = new Set(["not-ready", "not-recorded", "server-away"]);

/** The error for a problem that the desk answered with. */
export function refusal(/** @type {ProblemBody} */ problem, /** @type {number} */ status) {
  const refused = new Refused(problem, status);
  return status === 503 || NOT_READY.has(refused.kind) ? new NotReady(problem, status) : refused;
}

let csrf = "";
/** @type {Me | null} The person for whom the page was drawn; null before they have signed in. */
let mine = null;
/** @type {Set<(reachable: boolean) => void>} */
const watchers = new Set();
let reachable = true;

export function useToken(/** @type {string} */ token, /** @type {Me | null} */ me = null) {
  csrf = token;
  mine = me;
}

/**
 * Calls `watcher(isReachable)` whenever that changes, until the returned function is called.
 * @param {(reachable: boolean) => void} watcher
 */
export function watchConnection(watcher) {
  watchers.add(watcher);
  return () => { watchers.delete(watcher); };
}

export function isReachable() {
  return reachable;
}

export function setReachable(/** @type {boolean} */ now) {
  if (now === reachable) return;
  reachable = now;
  for (const watcher of watchers) watcher(now);
}

/** Milliseconds without input after which requests no longer keep the session alive. */
const UNATTENDED = 60_000;
let touched = performance.now();
for (const kind of ["keydown", "pointerdown", "pointermove", "wheel"]) globalThis.addEventListener?.(kind, () => { touched = performance.now(); }, { capture: true, passive: true });

/** Refusals that another tab may have caused, by signing in again, as somebody else or with another role. */
const ELSEWHERE = new Set(["csrf", "role"]);
const PROXY_ERRORS = new Set([502, 503, 504]);
const PATIENCE = 15_000;
const PROBLEM = "urn:sluice:problem:";

/**
 * Raises Refused, NotReady or Unreachable, the last also when there is no answer for `patience` milliseconds. A request
 * that `signal` aborts raises the signal's reason.
 * @param {string} method
 * @param {string} path
 * @param {object} [body]
 * @param {CallOptions} [options]
 * @returns {Promise<any>}
 */
export async function call(method, path, body, { keepalive = false, patience = PATIENCE, again = true, signal } = {}) {
  /** @type {Record<string, string>} */
  const headers = { accept: "application/json" };
  const token = csrf;
  const whose = mine?.user;
  if (method !== "GET") headers["x-csrf-token"] = token;
  if (performance.now() - touched > UNATTENDED) headers["x-unattended"] = "1";
  if (body !== undefined) headers["content-type"] = "application/json";
  const timeout = AbortSignal.timeout(patience);
  let response;
  try {
    response = await fetch(path, {
      method, headers, keepalive, body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin", signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
  } catch (/** @type {any} */ error) {
    if (signal?.aborted) throw error;
    setReachable(false);
    throw new Unreachable(error.message);
  }
  if (response.status === 204) {
    setReachable(true);
    return null;
  }
  const data = await response.json().catch(() => ({}));
  // A 502 to 504 that is not the desk's own problem comes from a proxy, and the desk itself cannot be reached.
  if (PROXY_ERRORS.has(response.status) && !String(data.type ?? "").startsWith(PROBLEM)) {
    setReachable(false);
    throw new Unreachable(`status ${response.status}`);
  }
  setReachable(true);
  if (response.ok) return data;
  const refused = refusal(data, response.status);
  if (response.status === 401 && refused.kind === "not-signed-in") document.dispatchEvent(new Event("signed-out"));
  // A request is never repeated in another person's name.
  if (again && whose && whose === mine?.user && ELSEWHERE.has(refused.kind) && (await renewed(token))) return call(method, path, body, { keepalive, patience, signal, again: false });
  throw refused;
}

/**
 * Whether the session has another token than the one that was `sent`; that token is used from now on. Raises
 * Unreachable where the page belongs to somebody else now.
 */
export async function renewed(sent = csrf) {
  const me = await call("GET", "/v1/session", undefined, { again: false });
  if (!mine || me.user !== mine.user || me.role !== mine.role) {
    document.dispatchEvent(new CustomEvent("session-changed", { detail: me }));
    throw new Unreachable("the page is drawn again for another session");
  }
  csrf = me.csrf;
  return csrf !== sent;
}

/** @type {(path: string, options?: CallOptions) => Promise<any>} */
export const get = (path, options) => call("GET", path, undefined, options);
/** @type {(path: string, body?: object) => Promise<any>} */
export const post = (path, body = {}) => call("POST", path, body);
