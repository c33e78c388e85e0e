/** The keyboard: what each key does now, and the `?` sheet that lists it. */

import { h, icon, replace } from "./dom.js";
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
const SHEET = { key: "?", label: "This sheet", run: () => showSheet() };
/** @type {Group} */
const EVERYWHERE = { title: "Everywhere", keys: [SHEET] };
/** Whether letters, digits and signs act; some people dictate, or press them by mistake (WCAG 2.1.4). */
let lettersAct = preference("keys", true);
/** @type {Record<string, string>} The keys that a person chose, by the action's id. */
const chosen = preference("keymap", {});

/** The keys that every view has beside its own. */
export function setKeysEverywhere(/** @type {Binding[]} */ keys) {
  EVERYWHERE.keys = [SHEET, ...keys];
}

/** @type {Record<string, string>} */
const NAMES = { " ": "Space", ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc", Enter: "↵" };
export const named = (/** @type {string} */ key) => key.split("+").map((part) => NAMES[part] ?? (part.length === 1 ? part.toUpperCase() : part)).join(" ");

/** The key of an action: the person's choice, or the `fallback`. */
export const keyOf = (/** @type {string | undefined} */ id, /** @type {string} */ fallback) => (id && chosen[id]) || fallback;

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

export function showSheet() {
  const close = () => dialog.close();
  const letters = h("input", { type: "checkbox", checked: lettersAct, onchange: () => { lettersAct = letters.checked; prefer("keys", lettersAct); } });
  const lists = h("div.body.sheet");
  const draw = () => replace(lists, [...groups, EVERYWHERE].map(({ title, keys }) => h("section", null, h("h3", null, title),
    h("ul", null, keys.filter((entry) => entry.label).map((entry) => h("li", null, entry.label, h("span.keys", null, caps(entry, draw))))))));
  draw();
  const dialog = h("dialog", { "aria-labelledby": "sheet-title", onclose: () => dialog.remove(), onclick: (/** @type {Event} */ event) => event.target === dialog && close() },
    h("header", null, h("h2", { id: "sheet-title" }, "Keyboard"), h("button.button.plain.icon", { type: "button", "aria-label": "Close", onclick: close }, icon("cross"))),
    lists,
    h("label.switch", null, letters, h("span", null, "Letters and digits act as keys", h("small.soft", null, "Switch off if you dictate, or press them by mistake. Arrows, Space, Enter and Esc still act."))));
  dialog.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => { if (event.key === "?") { event.preventDefault(); close(); } });
  document.body.append(dialog);
  dialog.showModal();
}

/** The keys of an action. One that has an id can be given another key. */
function caps(/** @type {Binding} */ entry, /** @type {() => void} */ _redraw) {
  return (entry.shown ? [entry.shown] : [keyOf(entry.id, entry.key), ...(entry.also ?? [])]).map((key) => h("kbd", null, named(key)));
}
