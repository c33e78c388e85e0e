/** What the tested parts use of a browser, and a desk that answers as a test says. Import it before the parts. */

class Storage {
  #kept = new Map();
  getItem(name) { return this.#kept.get(name) ?? null; }
  setItem(name, value) { this.#kept.set(name, value); }
  clear() { this.#kept.clear(); }
}

const page = new EventTarget();
globalThis.document = Object.assign(new EventTarget(), { visibilityState: "visible", querySelector: () => null, documentElement: { dataset: {} } });
globalThis.sessionStorage = new Storage();
globalThis.localStorage = new Storage();
globalThis.matchMedia = () => new EventTarget();
for (const name of ["addEventListener", "removeEventListener", "dispatchEvent"]) globalThis[name] = page[name].bind(page);

/** Requests so far: `{ method, path, body, headers, keepalive }`. */
export const requests = [];
let answers = [];
let byDefault = () => ({ status: 204 });

/** Lets the desk answer the next requests with these, one each: an answer, an error to raise, or a function of the request. */
export function desk(...next) {
  answers.push(...next);
}

/** Forgets what was asked and kept; `answer(request)` answers what no test has named an answer for. */
export function reset(answer = () => ({ status: 204 })) {
  requests.length = 0;
  answers = [];
  byDefault = answer;
  sessionStorage.clear();
}

export const problem = (status, kind, detail = kind) => ({ status, body: { type: `urn:sluice:problem:${kind}`, detail } });

globalThis.fetch = async (path, { method, body, headers, keepalive, signal }) => {
  const request = { method, path, body: body && JSON.parse(body), headers, keepalive };
  requests.push(request);
  let answer = answers.length ? answers.shift() : byDefault;
  if (typeof answer === "function") answer = await answer(request);
  signal?.throwIfAborted();
  if (answer instanceof Error) throw answer;
  return { status: answer.status ?? 200, ok: (answer.status ?? 200) < 400, json: async () => answer.body ?? {} };
};

/** Resolves when what was begun has come to rest. */
export const rest = () => new Promise((done) => { setTimeout(done, 30); });
