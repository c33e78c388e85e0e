/** Keyboard shortcuts: the active keys, and the person's own choices. */

import { prefer, preference } from "./preferences.js";

/**
 * @typedef {object} Binding
 * @property {string} key as `event.key` gives it on a Latin layout, with `Shift+` before it where needed
 * @property {string} [label] what it does, for the sheet; without one it is not listed and cannot be changed
 * @property {(event: KeyboardEvent, key: string) => void} run
 * @property {string[]} [also] other keys that do the same
 * @property {string} [shown] what the sheet says instead of the keys
 * @property {boolean} [repeats] whether a key that is held down acts again and again
 * @property {string} [id] names the action in the person's own choice of keys
 * @typedef {{ title: string, keys: Binding[] }} Group
 */

/** @type {Group[]} */
let groups = [];

/**
 * Sets the keys of the view shown in `place`. A view that is no longer on the page sets none.
 * @param {Element} place
 * @param {Group[]} next
 */
export function setKeys(place, next) {
  if (place.isConnected) groups = next;
}

/** @type {Binding} */
const SHEET = { key: "?", label: "This sheet", run: () => import("./key-sheet.js").then(({ showSheet }) => showSheet()) };
/** @type {Group} */
const EVERYWHERE = { title: "Everywhere", keys: [SHEET] };
/** Whether letter, digit and sign keys are active. Some people dictate, or press them by mistake (WCAG 2.1.4). */
let lettersAct = preference("keys", true);

export const lettersDoAct = () => lettersAct;

export function letLettersAct(/** @type {boolean} */ act) {
  lettersAct = act;
  prefer("keys", act);
}

/** @type {Record<string, string>} The keys that a person chose, by the action's id. */
let chosen = preference("keymap", {});

/** The keys that every view has in addition to its own. */
export function setKeysEverywhere(/** @type {Binding[]} */ keys) {
  EVERYWHERE.keys = [SHEET, ...keys];
}

/** @type {Record<string, string>} */
const NAMES = { " ": "Space", ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc", Enter: "↵" };
export const named = (/** @type {string} */ key) => key.split("+").map((part) => NAMES[part] ?? (part.length === 1 ? part.toUpperCase() : part)).join(" ");

/** The key of an action: the person's choice, or the `fallback`. */
export const keyOf = (/** @type {string | undefined} */ id, /** @type {string} */ fallback) => (id && chosen[id]) || fallback;

/** The active keys, by purpose. */
export const keyGroups = () => [...groups, EVERYWHERE];

/** Whether a person chose any key. */
export const hasOwnKeys = () => Object.keys(chosen).length > 0;

/**
 * Gives the action of `binding` another key. Returns null, or why that key cannot be used.
 * @param {Binding} binding
 * @param {string} key
 * @returns {string | null}
 */
export function chooseKey(binding, key) {
  if (key.replace("Shift+", "").length > 1) return "Choose a letter, a digit or a sign";
  const other = keyGroups().flatMap(({ keys }) => keys).find((each) => each !== binding && (keyOf(each.id, each.key) === key || each.also?.includes(key)));
  if (other) return `${named(key)} is the key for “${other.label ?? other.key}”`;
  const id = binding.id ?? "";
  if (key === binding.key) delete chosen[id];
  else chosen[id] = key;
  prefer("keymap", chosen);
  showKeys();
  return null;
}

/** All keys as they were at first. */
export function forgetOwnKeys() {
  chosen = {};
  prefer("keymap", chosen);
  showKeys();
}

/** Writes the keys on the buttons again. */
function showKeys() {
  for (const { keys } of keyGroups()) {
    for (const { id, key } of keys) {
      if (id) for (const cap of document.querySelectorAll(`kbd[data-action="${id}"]`)) cap.textContent = named(keyOf(id, key));
    }
  }
}

/** @type {Record<string, [string, string]>} Signs by the code of their key on a US keyboard, without and with Shift. */
const SIGNS = { Slash: ["/", "?"], Space: [" ", " "] };

/**
 * What a key press can stand for, the likelier first: the letter, digit or sign that it types; then, for layouts that type
 * none of the Latin ones and for input methods, the one at its place on a US keyboard.
 * @param {{ key: string, code: string, shiftKey: boolean }} event
 * @returns {string[]}
 */
export function candidates({ key, code, shiftKey }) {
  const shift = shiftKey ? "Shift+" : "";
  if (/^[a-z]$/i.test(key)) return [shift + key.toLowerCase()];
  if (/^[0-9 ]$/.test(key)) return [key];
  if (/^[A-Z][A-Za-z0-9]+$/.test(key) && !["Process", "Unidentified", "Dead"].includes(key)) return [shift + key];
  const [, letter, digit] = /^(?:Key([A-Z])|(?:Digit|Numpad)(\d))$/.exec(code) ?? [];
  const sign = SIGNS[code]?.[shiftKey ? 1 : 0];
  const atPlace = letter ? shift + letter.toLowerCase() : digit ? shift + digit : sign;
  return [.../^[!-~]$/.test(key) ? [key] : [], ...atPlace ? [atPlace] : []];
}

/** The binding that a press is for, and the key that it was taken for. */
function bound(/** @type {string[]} */ pressed) {
  for (const key of pressed) {
    for (const { keys } of [...groups, EVERYWHERE]) {
      const binding = keys.find((each) => keyOf(each.id, each.key) === key || each.also?.includes(key));
      if (binding) return { binding, key };
    }
  }
  return null;
}

const TYPED_INTO = "input:not([type=range]):not([type=checkbox]):not([type=radio]), textarea, select";

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (document.querySelector("dialog[open]")) return;
  const target = /** @type {HTMLElement} */ (event.target);
  const pressed = candidates(event);
  const isText = pressed.some((key) => key.replace("Shift+", "").length === 1 && key !== " ");
  // The queue's select keeps arrows, Space and Enter; letters would jump to another queue, and are meant for the image.
  const typedInto = target.matches?.(TYPED_INTO);
  if (typedInto && !(isText && lettersAct && target.matches("select[data-keys]"))) {
    if (event.key === "Escape") target.blur();
    return;
  }
  if (isText && !lettersAct) return;
  const found = bound(pressed);
  if (!found) {
    if (typedInto) event.preventDefault();
    return;
  }
  // A held key must not decide about image after image.
  if (event.repeat && !found.binding.repeats) return event.preventDefault();
  // Buttons and links keep their own Enter and Space.
  if ((event.key === "Enter" || event.key === " ") && target.closest?.("button:not(.tile), a, summary")) return;
  event.preventDefault();
  found.binding.run(event, found.key);
});
