/** The line below the bar: the desk cannot be reached, takes no decisions now, or is still building its index. */

import { isReachable } from "./api.js";
import { explained } from "./messages.js";

/** Milliseconds for which the line stays after things work again. */
const WELL_AGAIN = 2000;

export class Banner {
  #element;
  /** @type {Error | null} Why the desk takes no decisions now. */
  #error = null;
  /** @type {string | null} How far the index is built; null when it is complete. */
  #progress = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  constructor(/** @type {any} */ element) {
    this.#element = element;
  }

  reachable(/** @type {boolean} */ reachable) {
    this.#draw(reachable ? "Connected again" : null);
  }

  /** With null: the desk takes decisions again. */
  notReady(/** @type {Error | null} */ error) {
    this.#error = error;
    this.#draw(error ? null : "The desk accepts decisions again");
  }

  progress(/** @type {string | null} */ text) {
    if (text === this.#progress) return;
    this.#progress = text;
    if (text || !this.#timer) this.#draw(null);
  }

  /** Shows the most serious problem or, if there is none, the message `again` for a moment. */
  #draw(/** @type {string | null} */ again) {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (!isReachable()) this.#show("The connection to the desk is lost. Your decisions are kept here and sent when it is back.", "");
    else if (this.#error) this.#show(`${explained(this.#error)}. Your decisions are kept here and sent when the desk can take them.`, "");
    else if (again) {
      this.#show(again, "back");
      this.#timer = setTimeout(() => this.#draw(null), WELL_AGAIN);
    } else if (this.#progress) this.#show(this.#progress, "progress");
    else this.#element.hidden = true;
  }

  #show(/** @type {string} */ text, /** @type {string} */ look) {
    this.#element.textContent = text;
    this.#element.className = `connection ${look}`;
    this.#element.hidden = false;
  }
}
