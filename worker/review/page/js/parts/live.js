/** Live events of the desk. Also detects a lost and a restored connection. */

import { get, setReachable } from "./api.js";

const listeners = new Set();
/** @type {EventSource | null} */
let source = null;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let probing;

/** Calls `listener(event)` for each event until the returned function is called. */
export function onDeskEvent(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** As onDeskEvent, but at most once in `milliseconds`, for listeners that send a request. */
export function onQuietDesk(listener, milliseconds = 800) {
  let timer = 0;
  const forget = onDeskEvent(() => {
    timer ||= setTimeout(() => { timer = 0; listener(); }, milliseconds);
  });
  return () => { forget(); clearTimeout(timer); };
}

export function connect() {
  disconnect();
  source = new EventSource("/v1/events");
  source.addEventListener("open", () => setReachable(true));
  source.addEventListener("desk", (event) => {
    const data = JSON.parse(event.data);
    for (const listener of listeners) listener(data);
  });
  // The browser reconnects a broken stream, but stops after an answer that is not a stream.
  source.addEventListener("error", () => probe());
}

export function disconnect() {
  source?.close();
  source = null;
  clearTimeout(probing);
  probing = undefined;
}

/** Repeats a request until the desk answers. */
export function probe() {
  if (probing || !source) return;
  probing = setTimeout(async () => {
    probing = undefined;
    try {
      await get("/v1/session");
      if (source?.readyState === EventSource.CLOSED) connect();
    } catch (/** @type {any} */ error) {
      if (error.status !== 401) probe();
    }
  }, 1000);
}

addEventListener("offline", () => setReachable(false));
addEventListener("online", () => probe());
