/** The reasons and the note for the next action. */

import { announce } from "./messages.js";
import { h } from "./dom.js";

export class Reasons {
  #labels;
  #chosen = new Set();
  #buttons;
  /** The field for the note. */
  note;

  /** `labels` can be given as reasons, by the digits from 1 on. */
  constructor(/** @type {string[]} */ labels, { rows = "2", placeholder = "A note for others (N)" } = {}) {
    this.#labels = labels;
    this.#buttons = labels.map((label, index) => h("button.button", { type: "button", "aria-pressed": "false", onclick: () => this.toggle(label) }, h("kbd", { "aria-hidden": "true" }, String(index + 1)), label));
    this.note = h("textarea", { rows, maxlength: "4000", "aria-label": "Note for others", placeholder });
  }

  get buttons() {
    return this.#buttons;
  }

  /** What was said so far. @returns {{ labels: string[], note: string | null }} */
  get said() {
    return { labels: [...this.#chosen], note: this.note.value.trim() || null };
  }

  /** Shows what was said before, or nothing. */
  set(/** @type {{ labels: string[], note: string | null } | undefined} */ said) {
    this.#chosen = new Set(said?.labels);
    this.note.value = said?.note ?? "";
    this.#draw();
  }

  toggle(/** @type {string} */ label) {
    if (!this.#chosen.delete(label)) this.#chosen.add(label);
    this.#draw();
    announce(`${label} ${this.#chosen.has(label) ? "on" : "off"}`);
  }

  /** The group of keys for them. @returns {import("./keys.js").Group} */
  keys(title = "Say why") {
    return { title, keys: [
      ...this.#labels.map((label, index) => ({ key: String(index + 1), label, run: () => { if (!this.#buttons[index].disabled) this.toggle(label); } })),
      { key: "n", id: "note", label: "Write a note (Esc leaves it)", run: () => this.note.focus() },
    ] };
  }

  #draw() {
    this.#labels.forEach((label, index) => this.#buttons[index].setAttribute("aria-pressed", String(this.#chosen.has(label))));
  }
}
