/** An animation: its frames, played or looked at one by one, with the worst frame marked. */

import { h, replace } from "./dom.js";
import { described } from "./pictures.js";

/** Milliseconds that a frame is shown where the file does not say, and at least and at most. */
const USUAL = 100;
const SHORTEST = 30;
const LONGEST = 2000;
/** Pixels of the larger side of the canvas. The frames of a sheet have 480. */
const SIDE = 960;

/** @typedef {import("./shelf.js").Item} Item */

/** Whether an item's image has several frames. */
export const isAnimation = (/** @type {Item} */ item) => Boolean(item.image && (item.scores?.frames ?? 1) > 1);

/** "worst frame 5 of 12", or nothing for a still image. */
export function worstFrame(/** @type {Item} */ item) {
  return isAnimation(item) ? `worst frame ${(item.scores.worst_frame ?? 0) + 1} of ${item.scores.frames}` : "";
}

/** Whether a person wants nothing to move by itself. */
export const wantsStillness = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** The desk has all frames in one picture, encoded again; the file itself never reaches the browser. */
export class Animation {
  #item;
  /** @type {ImageBitmap | null} */
  #sheet = null;
  /** @type {number[]} Of the frames of the sheet, from 0. */
  #numbers = [];
  #columns = 1;
  #cell = 1;
  #pace = USUAL;
  #count = 0;
  #worst = 0;
  /** Which frame of the sheet is shown. */
  #at = 0;
  #timer = 0;
  #left = false;
  #onchange;
  #canvas = h("canvas.fit", { role: "img" });
  #words = h("span.which");
  #ticks = h("div.ticks", { role: "group", "aria-label": "Frames" });
  element;

  /** `onchange()` is called when it begins or ends to play. */
  constructor(/** @type {Item} */ item, /** @type {() => void} */ onchange) {
    this.#item = item;
    this.#worst = item.scores.worst_frame ?? 0;
    this.#onchange = onchange;
    this.#canvas.setAttribute("aria-label", described(item));
    this.element = h("div.animation", null, this.#canvas, h("div.film", null, this.#ticks, this.#words));
  }

  get isLoaded() {
    return this.#sheet !== null;
  }

  get isPlaying() {
    return this.#timer !== 0;
  }

  /** Loads the frames, and shows the worst. Throws an Error that says why there are none to see. */
  async load() {
    const answer = await fetch(this.#item.image?.frames ?? "");
    if (!answer.ok) throw new Error((await answer.json()).detail);
    const said = (/** @type {string} */ name) => answer.headers.get(`x-frame-${name}`) ?? "";
    this.#sheet = await createImageBitmap(await answer.blob());
    this.#numbers = said("numbers").split(",").map(Number);
    this.#columns = Number(said("columns"));
    this.#count = Number(said("count"));
    this.#cell = this.#sheet.width / this.#columns;
    const seconds = Number(said("seconds"));
    this.#pace = seconds ? Math.min(LONGEST, Math.max(SHORTEST, (1000 * seconds) / this.#numbers.length)) : USUAL;
    const [width, height] = ["width", "height"].map((name) => Number(answer.headers.get(`x-image-${name}`)));
    const scale = SIDE / Math.max(width, height);
    this.#canvas.width = Math.max(1, Math.round(width * scale));
    this.#canvas.height = Math.max(1, Math.round(height * scale));
    replace(this.#ticks, this.#numbers.map((number, index) => h("button", {
      type: "button", class: number === this.#worst ? "worst" : "", "aria-label": `Frame ${number + 1} of ${this.#count}${number === this.#worst ? ", the worst" : ""}`,
      onclick: () => { this.pause(); this.#show(index); },
    })));
    this.#show(Math.max(0, this.#numbers.indexOf(this.#worst)));
  }

  toggle() {
    if (this.isPlaying) this.pause();
    else this.play();
  }

  play() {
    if (this.isPlaying || this.#left || this.#numbers.length < 2) return;
    this.#timer = setInterval(() => this.#show((this.#at + 1) % this.#numbers.length), this.#pace);
    this.#onchange();
  }

  pause() {
    if (!this.isPlaying) return;
    clearInterval(this.#timer);
    this.#timer = 0;
    this.#onchange();
  }

  /** Ends it for good. */
  leave() {
    this.#left = true;
    clearInterval(this.#timer);
    this.#timer = 0;
    this.#sheet?.close();
    this.#sheet = null;
  }

  #show(/** @type {number} */ index) {
    const pen = this.#canvas.getContext("2d");
    if (!this.#sheet || !pen) return;
    this.#at = index;
    const [left, top] = [this.#cell * (index % this.#columns), this.#cell * Math.floor(index / this.#columns)];
    pen.drawImage(this.#sheet, left, top, this.#cell, this.#cell, 0, 0, this.#canvas.width, this.#canvas.height);
    const isWorst = this.#numbers[index] === this.#worst;
    this.element.classList.toggle("at-worst", isWorst);
    replace(this.#words, isWorst && h("b", null, "worst frame "), `${isWorst ? "" : "frame "}${this.#numbers[index] + 1} of ${this.#count}`);
    [...this.#ticks.children].forEach((tick, place) => tick.toggleAttribute("data-shown", place === index));
  }
}
