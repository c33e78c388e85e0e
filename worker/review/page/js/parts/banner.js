/** The line below the bar: that the desk cannot be reached, or that it cannot take decisions now, and why. */

import { isReachable } from "./api.js";
import { explained } from "./messages.js";

/** Milliseconds that a line which says that things work again stays. */
const WELL_AGAIN = 2000;

export class Banner {
  #element;
  /** @type {Error | null} Why the desk takes no decisions now. */
  #error = null;

  constructor(/** @type {any} */ element) {
    this.#element = element;
  }

  reachable(/** @type {boolean} */ reachable) {
    if (reachable) this.#wellAgain("Connected again");
    else this.#bad("The connection to the desk is lost. Your decisions are kept here and sent when it is back.");
  }

  /** With null: the desk takes decisions again. */
  notReady(/** @type {Error | null} */ error) {
    this.#error = error;
    if (!isReachable()) return;
    if (error) this.#bad(`${explained(error)}. Your decisions are kept here and sent when the desk can take them.`);
    else this.#wellAgain("The desk takes decisions again");
  }

  #bad(/** @type {string} */ text) {
    this.#show(text, false);
  }

  #wellAgain(/** @type {string} */ text) {
    this.#show(text, true);
    setTimeout(() => { this.#element.hidden = isReachable() && this.#error === null; }, WELL_AGAIN);
  }

  #show(/** @type {string} */ text, /** @type {boolean} */ isWell) {
    this.#element.textContent = text;
    this.#element.hidden = false;
    this.#element.classList.toggle("back", isWell);
  }
}
