/** Dialogs: a question, and one item shown large. */

import { button, h, icon } from "./dom.js";
import { itemPanel } from "./item-panel.js";
import { described, large, missing, picture } from "./pictures.js";

/** Opens a dialog of `content` below its title; closed by Esc, by its cross and by a click beside it. */
export function open(title, ...content) {
  const dialog = h("dialog", { "aria-label": title, onclose: () => dialog.remove(), onclick: (event) => event.target === dialog && dialog.close() },
    h("header", null, h("h2", { dir: "auto" }, title), h("button.button.plain.icon", { type: "button", "aria-label": "Close", onclick: () => dialog.close() }, icon("cross"))), content);
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/**
 * Asks before something is done. Resolves with what was written into `field` (its label; the text begins with `value`),
 * or true where there is none; with null when it was cancelled.
 * @param {string} title
 * @param {string[]} text
 * @param {{ field?: string, value?: string, action: string, iconName?: string, danger?: boolean }} options
 * @returns {Promise<any>}
 */
export function ask(title, text, { field, value = "", action, iconName, danger = false }) {
  return new Promise((resolve) => {
    /** @type {any} */
    let answer = null;
    const input = field && h("input", { maxlength: "256", value, autocapitalize: "none", spellcheck: "false" });
    const form = h("form.body.column", { onsubmit: (event) => { event.preventDefault(); answer = input ? input.value : true; dialog.close(); } },
      text.map((line) => h("p", null, line)), input && h("label.field", null, h("span", null, field), input),
      h("div.picker", null, button(action, { kind: danger ? "reject" : "primary", iconName, type: "submit" }), button("Cancel", { onclick: () => dialog.close() })));
    const dialog = open(title, form);
    dialog.addEventListener("close", () => resolve(answer));
    (input ?? form.querySelector("button")).focus();
  });
}

/** Shows an item, enlarged, with its details; `acts` are shown above them. Returns the dialog. */
export function showItem(/** @type {any} */ item, /** @type {any} */ acts = null) {
  const shot = h("div.shot");
  const none = (title, detail) => shot.replaceChildren(missing(title, detail));
  if (item.image) shot.append(picture(large(item.image), described(item), { onmissing: none }));
  else none("There is no image", item.failure?.message ?? "");
  return open(item.event_id, h("div.body.opened", null, shot, h("div.about", null, acts, itemPanel(item))));
}
