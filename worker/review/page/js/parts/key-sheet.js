/** The `?` sheet: lists the keys and lets a person change them. */

import { button, h, icon, replace } from "./dom.js";
import { candidates, chooseKey, forgetOwnKeys, hasOwnKeys, keyGroups, keyOf, lettersDoAct, letLettersAct, named } from "./keys.js";

/** @typedef {import("./keys.js").Binding} Binding */

export function showSheet() {
  /** @type {Binding | null} The action that waits for its new key. */
  let waiting = null;
  const close = () => dialog.close();
  const lists = h("div.body.sheet");
  const message = h("p.soft", { role: "status" });
  const reset = button("Standard keys", { iconName: "undo", onclick: () => { forgetOwnKeys(); draw("All keys have their default again."); } });

  /** The keys of an action. If the action has an id, its key is a button that changes it. */
  const caps = (/** @type {Binding} */ entry) => {
    if (entry.shown) return h("kbd", null, entry.shown);
    const key = named(keyOf(entry.id, entry.key));
    const first = entry.id
      ? h("button.cap", { type: "button", "data-entry": entry.id, "aria-label": `${entry.label}: ${key}. Choose another key`, onclick: () => { waiting = entry; draw(`Press a new key for “${entry.label}”, or Esc.`, entry.id); } }, h("kbd", null, waiting === entry ? "…" : key))
      : h("kbd", null, key);
    return [first, (entry.also ?? []).map((each) => h("kbd", null, named(each)))];
  };

  const draw = (text = "Click a key in this list to change it.", /** @type {string | undefined} */ focus = undefined) => {
    replace(lists, keyGroups().map(({ title, keys }) => h("section", null, h("h3", null, title),
      h("ul", null, keys.filter((entry) => entry.label).map((entry) => h("li", null, entry.label, h("span.keys", null, caps(entry))))))));
    message.textContent = text;
    reset.hidden = !hasOwnKeys();
    if (focus) lists.querySelector(`[data-entry="${focus}"]`)?.focus();
  };

  const letters = h("input", { type: "checkbox", checked: lettersDoAct(), onchange: () => letLettersAct(letters.checked) });
  const dialog = h("dialog", { "aria-labelledby": "sheet-title", onclose: () => dialog.remove(), onclick: (/** @type {Event} */ event) => event.target === dialog && close() },
    h("header", null, h("h2", { id: "sheet-title" }, "Keyboard"), h("button.button.plain.icon", { type: "button", "aria-label": "Close", onclick: close }, icon("cross"))),
    h("div.sheet-head", null, message, reset), lists,
    h("label.switch", null, letters, h("span", null, "Letter and digit keys are shortcuts", h("small.soft", null, "Switch this off if you dictate or press keys by mistake. Arrows, Space, Enter and Esc still work."))));

  dialog.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey || ["Shift", "Tab"].includes(event.key)) return;
    if (waiting) {
      event.preventDefault();
      const entry = waiting;
      const [key] = candidates(event);
      waiting = null;
      if (event.key === "Escape") return void draw(undefined, entry.id);
      const refused = key ? chooseKey(entry, key) : "That key cannot be used";
      draw(refused ? `${refused}.` : `${named(keyOf(entry.id, entry.key))} is the key for “${entry.label}” now.`, entry.id);
    } else if (event.key === "?") {
      event.preventDefault();
      close();
    }
  });
  draw();
  document.body.append(dialog);
  dialog.showModal();
}
