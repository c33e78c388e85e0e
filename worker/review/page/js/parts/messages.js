/** Messages at the foot of the page, and words for screen readers. */

import { Refused, Unreachable } from "./api.js";
import { button, h } from "./dom.js";

const region = /** @type {HTMLElement} */ (document.getElementById("toasts"));
const announcer = /** @type {HTMLElement} */ (document.getElementById("announcer"));
const SECONDS = 6;

/**
 * Shows a message; `action` is `{ label, key, run }`; `seconds` how long; a `kept` one stays over a change of view.
 * Returns a function that removes it.
 * @param {string} text
 * @param {{ bad?: boolean, action?: { label: string, key: string, run: () => void }, seconds?: number, timer?: boolean, kept?: boolean }} [options]
 */
export function toast(text, { bad = false, action, seconds = SECONDS, timer = false, kept = false } = {}) {
  const remove = () => {
    clearTimeout(timeout);
    // After its button was pressed the focus goes to the work, not to the top of the page.
    if (element.contains(document.activeElement)) document.getElementById("main")?.focus();
    element.remove();
  };
  // A message that comes again replaces the one with the same text.
  for (const other of [...region.children]) if (other.firstChild?.textContent === text) other.remove();
  const element = h("div.toast", { role: bad ? "alert" : null, class: `${bad ? "bad" : ""}${kept ? " kept" : ""}` }, h("span", null, text),
    action && button(action.label, { key: action.key, onclick: () => { remove(); action.run(); } }),
    timer && h("i.timer", { style: { "animation-duration": `${seconds}s` } }));
  region.append(element);
  while (region.children.length > 3) region.firstElementChild?.remove();
  const timeout = setTimeout(remove, seconds * 1000);
  return remove;
}

export function announce(/** @type {string} */ text) {
  announcer.textContent = text;
}

/** A message for what an API call raised. A lost connection has its own, at the top of the page, and an ended session the sign-in page. */
export function complain(/** @type {any} */ error) {
  if (error instanceof Unreachable || error.kind === "not-signed-in") return;
  toast(explained(error), { bad: true });
  if (!(error instanceof Refused)) console.error(error);
}

/** The message for an error of an API call. */
export function explained(/** @type {any} */ error) {
  if (error instanceof Unreachable) return "The desk does not answer. The page retries by itself.";
  return error.message ? error.message[0].toUpperCase() + error.message.slice(1) : "Something went wrong";
}
