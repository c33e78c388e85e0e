/** Detects an inactive user and releases the leases, so that others can get the items. */

import { button, empty, replace } from "./dom.js";
import { setKeys } from "./keys.js";

/** Calls `listener` whenever somebody comes back to this page, from another tab or window; until `signal` is aborted. */
export function onReturn(listener, signal) {
  const back = () => { if (document.visibilityState === "visible") listener(); };
  document.addEventListener("visibilitychange", back, { signal });
  addEventListener("focus", back, { signal });
}

/** Minutes without a key or a click after which a user counts as inactive. */
const MINUTES = 10;

/** Calls `leave` and says so in `main` when somebody is away; until the returned function is called. */
export function watchAway(main, leave) {
  let timer = 0;
  const goAway = () => {
    leave();
    setKeys(main, []);
    const on = button("Go on", { kind: "primary", onclick: () => dispatchEvent(new HashChangeEvent("hashchange")) });
    replace(main, empty("clock", "You were away", "Your images went back to the queue, so that others can go on.", on));
    on.focus();
  };
  const awake = () => {
    clearTimeout(timer);
    timer = setTimeout(goAway, MINUTES * 60_000);
  };
  const kinds = ["keydown", "pointerdown"];
  for (const kind of kinds) document.addEventListener(kind, awake);
  awake();
  return () => {
    clearTimeout(timer);
    for (const kind of kinds) document.removeEventListener(kind, awake);
  };
}
