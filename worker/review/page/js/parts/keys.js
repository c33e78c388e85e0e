/** The keyboard: what each key does now, and the `?` sheet that tells it. */

import { h, icon } from "./dom.js";
import { prefer, preference } from "./preferences.js";

let groups = [];

/**
 * Sets the keys of the view shown in `place`: `[{ title, keys: [{ key, label, run, also }] }]`. `key` is as `event.key`
 * says, with `Shift+` before it where needed; `also` are other keys that do the same, `shown` what the sheet says in
 * their place. A view that is no longer on the page has none.
 */
export function setKeys(place, next) {
  if (place.isConnected) groups = next;
}

const SHEET = { key: "?", label: "This sheet", run: showSheet };
const EVERYWHERE = { title: "Everywhere", keys: [SHEET] };
/** Letters, digits and signs act; some people dictate, or press them by mistake (WCAG 2.1.4). */
let lettersAct = preference("keys", true);

/** The keys that every view has beside its own. */
export function setKeysEverywhere(keys) {
  EVERYWHERE.keys = [SHEET, ...keys];
}

const NAMES = { " ": "Space", ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc", Enter: "↵" };
export const named = (key) => key.split("+").map((part) => NAMES[part] ?? (part.length === 1 ? part.toUpperCase() : part)).join(" ");

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (document.querySelector("dialog[open]")) return;
  const typing = event.target.matches?.("input:not([type=range]):not([type=checkbox]):not([type=radio]), textarea, select");
  if (typing) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (event.key.length === 1 && event.key !== " " && !lettersAct) return;
  const plain = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const shifted = event.shiftKey && (event.key.length > 1 || /[a-z]/i.test(event.key)) ? `Shift+${plain}` : plain;
  for (const { keys } of [...groups, EVERYWHERE]) {
    for (const entry of keys) {
      if (entry.key !== shifted && !entry.also?.includes(shifted)) continue;
      // A held key must not decide about image after image.
      if (event.repeat && !entry.repeats) { event.preventDefault(); return; }
      // Buttons and links keep their own Enter and Space.
      if ((event.key === "Enter" || event.key === " ") && event.target.closest?.("button:not(.tile), a, summary")) return;
      event.preventDefault();
      entry.run(event);
      return;
    }
  }
});

export function showSheet() {
  const close = () => dialog.close();
  const letters = h("input", { type: "checkbox", checked: lettersAct, onchange: () => { lettersAct = letters.checked; prefer("keys", lettersAct); } });
  const dialog = h("dialog", { "aria-labelledby": "sheet-title", onclose: () => dialog.remove(), onclick: (event) => event.target === dialog && close() },
    h("header", null, h("h2", { id: "sheet-title" }, "Keyboard"), h("button.button.plain.icon", { type: "button", "aria-label": "Close", onclick: close }, icon("cross"))),
    h("div.body.sheet", null, [...groups, EVERYWHERE].map(({ title, keys }) => h("section", null, h("h3", null, title),
      h("ul", null, keys.filter((entry) => entry.label).map((entry) => h("li", null, entry.label, h("span.keys", null, (entry.shown ? [entry.shown] : [entry.key, ...(entry.also ?? [])]).map((key) => h("kbd", null, named(key)))))))))),
    h("label.switch", null, letters, h("span", null, "Letters and digits act as keys", h("small.soft", null, "Off: for those who dictate, or press them by mistake. Arrows, Space, Enter and Esc go on acting."))));
  dialog.addEventListener("keydown", (event) => { if (event.key === "?") { event.preventDefault(); close(); } });
  document.body.append(dialog);
  dialog.showModal();
}
