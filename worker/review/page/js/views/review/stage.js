/** The image that is judged: blurred, grey, in native pixels, zoomed, as a heat map, or played. */

import { get } from "../../parts/api.js";
import { button, h, replace } from "../../parts/dom.js";
import { announce, complain, toast } from "../../parts/messages.js";
import { Animation, isAnimation, wantsStillness, worstFrame } from "../../parts/animation.js";
import { described, large, missing, originalSize, picture } from "../../parts/pictures.js";
import { applyGrey, prefer, preference } from "../../parts/preferences.js";
import { keyOf, named } from "../../parts/keys.js";

/** Pixels by which an arrow key scrolls an image that is larger than its frame. */
const PAN = 120;
/** Timeout of a heat map in milliseconds. It takes all the desk's CPUs for seconds. */
const HEAT_PATIENCE = 120_000;
/** The zoom of one wheel step, and the maximum zoom. */
const ZOOM_STEP = 1.0015;
const ZOOM_AT_MOST = 16;

/** @typedef {import("../../parts/shelf.js").Item} Item */

export class Stage {
  /** @type {Item | null} */
  #item = null;
  /** Whether the image, or a message that there is none, was shown. Before that it cannot be decided. */
  #seen = false;
  #shownAt = 0;
  #native = false;
  #zoom = 1;
  /** @type {{ map: any } | null} */
  #heat = null;
  /** @type {Animation | null} */
  #animation = null;
  #blur = preference("blur", false);
  #grey = preference("grey", false);
  #frame = h("div.frame", { tabindex: "-1" });
  #size = h("span.size");
  #tools;
  #onblur;
  element;

  /** `onblur()` is called when blur is switched on or off, so that thumbnails are redrawn. */
  constructor(/** @type {() => void} */ onblur) {
    this.#onblur = onblur;
    const tool = (/** @type {string} */ id, /** @type {string} */ label, /** @type {string} */ iconName, /** @type {string} */ key, /** @type {boolean} */ pressed, /** @type {() => void} */ onclick) =>
      button(label, { key: named(keyOf(id, key)), keyId: id, iconName, kind: "plain", onclick, "aria-pressed": String(pressed) });
    this.#tools = {
      blur: tool("blur", "Blur", "blur", "b", this.#blur, () => this.toggleBlur()),
      grey: tool("grey", "Grey", "grey", "g", this.#grey, () => this.toggleGrey()),
      native: tool("native", "1:1", "zoom", "z", false, () => this.toggleNative()),
      heat: tool("heat", "Heat", "heat", "h", false, () => this.toggleHeat()),
      play: tool("play", "Play", "play", "m", false, () => this.togglePlay()),
    };
    this.#tools.play.hidden = true;
    this.element = h("section.stage", { "aria-label": "Image" }, this.#frame, h("div.tools", { role: "group", "aria-label": "View" }, ...Object.values(this.#tools), this.#size));
    this.#listen();
  }

  /** Whether the image was visible. */
  get seen() {
    return this.#seen;
  }

  /** Seconds since the image became visible. */
  get seconds() {
    return Math.round(Math.min(3600, (performance.now() - this.#shownAt) / 1000) * 100) / 100;
  }

  get isMissing() {
    return this.#frame.querySelector(".missing") !== null;
  }

  /** Shows an item's image without effects. */
  show(/** @type {Item} */ item) {
    if (item !== this.#item) {
      this.#heat = null;
      this.#forgetAnimation();
    }
    this.#item = item;
    this.#tools.play.hidden = !isAnimation(item);
    this.#zoom = 1;
    this.#shownAt = performance.now();
    this.draw();
    if (isAnimation(item) && !this.#animation && !this.#blur && preference("play", false) && !wantsStillness()) this.#play(item);
  }

  /** Shows a message in place of an image. */
  clear(/** @type {Element} */ message) {
    this.#item = null;
    this.#heat = null;
    this.#forgetAnimation();
    this.#tools.play.hidden = true;
    this.#seen = false;
    this.#frame.className = "frame";
    replace(this.#size);
    replace(this.#frame, message);
  }

  /** The keys of the stage. @returns {import("../../parts/keys.js").Binding[]} */
  keys() {
    /** @type {Record<string, [number, number]>} */
    const steps = { ArrowLeft: [-PAN, 0], ArrowRight: [PAN, 0], ArrowUp: [0, -PAN], ArrowDown: [0, PAN] };
    return [
      { key: "b", id: "blur", label: "Blur on and off", run: () => this.toggleBlur() },
      { key: "g", id: "grey", label: "Grey on and off", run: () => this.toggleGrey() },
      { key: "z", id: "native", label: "Original pixels", run: () => this.toggleNative() },
      { key: "h", id: "heat", label: "Heat map of where the model finds damage", run: () => this.toggleHeat() },
      { key: "m", id: "play", label: "Play and pause an animation", run: () => this.togglePlay() },
      { key: "ArrowLeft", label: "Move an enlarged image", also: ["ArrowUp", "ArrowDown", "ArrowRight"], repeats: true, run: (_, key) => {
        const [left, top] = steps[key];
        if (this.#isEnlarged) this.#frame.scrollBy({ left, top });
      } },
    ];
  }

  get #isEnlarged() {
    return this.#frame.classList.contains("native");
  }

  draw() {
    const item = this.#item;
    if (!item) return;
    const heat = !this.#blur && this.#heat?.map;
    const native = this.#native && !this.#blur && !heat && item.image;
    this.#frame.className = `frame${native ? " native" : ""}${heat ? " heat" : ""}`;
    this.#seen = true;
    this.#tools.blur.setAttribute("aria-pressed", String(this.#blur));
    this.#tools.native.setAttribute("aria-pressed", String(Boolean(native)));
    this.#tools.heat.setAttribute("aria-pressed", String(Boolean(heat)));
    this.#tools.heat.setAttribute("aria-busy", String(Boolean(this.#heat && !this.#heat.map)));
    replace(this.#size);
    if (!item.image) return void replace(this.#frame, missing("There is no image", item.failure?.message ?? ""));
    const onmissing = (/** @type {string} */ title, /** @type {string} */ detail) => {
      if (this.#item !== item) return;
      this.#frame.classList.remove("loading");
      replace(this.#frame, missing(title, detail));
    };
    if (heat) return void replace(this.#frame, picture(heat.picture, `heat map: ${heatWords(heat)}`, { onmissing, className: "fit" }), h("p.veil.notice", null, heatWords(heat)));
    if (this.#animation?.isLoaded) return void replace(this.#frame, this.#animation.element);
    const image = picture(native ? item.image.native : large(item.image), described(item), { onmissing, className: native ? "" : "fit" });
    if (!image.complete) this.#load(image);
    image.decode().then(() => this.#drawSize(image), () => {});
    if (native) whenLoaded(image, () => this.#sizeNative(image));
    replace(this.#frame, image);
  }

  /** One pixel of the image is one pixel of the screen, whatever the browser's zoom. */
  #sizeNative(/** @type {HTMLImageElement} */ image) {
    image.style.width = `${image.naturalWidth / devicePixelRatio}px`;
    this.#frame.scrollTo((this.#frame.scrollWidth - this.#frame.clientWidth) / 2, (this.#frame.scrollHeight - this.#frame.clientHeight) / 2);
  }

  /** The image's size and magnification, because an enlarged small image looks blurry. */
  async #drawSize(/** @type {HTMLImageElement} */ image) {
    const item = this.#item;
    const size = await originalSize(image.currentSrc);
    if (!item || !size || image.parentElement !== this.#frame) return;
    const { width, height } = size;
    const larger = devicePixelRatio * Math.min(image.clientWidth / width, image.clientHeight / height);
    const enlarged = image.classList.contains("fit") && !this.#blur && larger >= 1.5;
    replace(this.#size, `${width} × ${height}`, enlarged && h("b", null, ` drawn ${larger.toFixed(larger < 10 ? 1 : 0)} × larger`), isAnimation(item) && h("b", null, ` ${worstFrame(item)}`));
    this.#size.title = "Pixels of the image, width and height";
  }

  /** The image cannot be decided before it is loaded. */
  #load(/** @type {HTMLImageElement} */ image) {
    this.#seen = false;
    this.#frame.classList.add("loading");
    const loaded = () => {
      if (image.parentElement !== this.#frame) return;
      this.#seen = true;
      this.#shownAt = performance.now();
      this.#frame.classList.remove("loading");
    };
    for (const kind of ["load", "error"]) image.addEventListener(kind, loaded, { once: true });
  }

  // -- actions of the tools ---------------------------------------------------------------------------------------------

  toggleBlur() {
    this.#blur = !this.#blur;
    this.#forgetAnimation();
    prefer("blur", this.#blur);
    this.#redraw("blur", "Blur", this.#blur);
    this.#onblur();
  }

  toggleGrey() {
    this.#grey = !this.#grey;
    prefer("grey", this.#grey);
    applyGrey();
    this.#tools.grey.setAttribute("aria-pressed", String(this.#grey));
    announce(`Grey ${this.#grey ? "on" : "off"}`);
  }

  toggleNative() {
    this.#heat = null;
    this.#forgetAnimation();
    this.#native = !this.#native;
    this.#redraw("native", "Original pixels", this.#native);
  }

  /** Shows the heat map of this image. It is made on demand and removed with the next image. */
  async toggleHeat() {
    const item = this.#item;
    if (!item?.image) return;
    if (this.#blur) return void toast("The image is blurred: its heat map would show it");
    if (this.#heat) {
      this.#heat = null;
      announce("Heat map off");
      return this.draw();
    }
    const heat = { map: null };
    this.#heat = heat;
    this.#forgetAnimation();
    announce("Making the heat map");
    this.draw();
    try {
      heat.map = await get(`/v1/items/${encodeURIComponent(item.item_id)}/heat-map`, { patience: HEAT_PATIENCE });
    } catch (error) {
      if (this.#heat !== heat) return;
      this.#heat = null;
      complain(error);
    }
    if (this.#item !== item || (heat.map && this.#heat !== heat)) return;
    if (heat.map) announce(heatWords(heat.map));
    this.draw();
  }

  /** Plays and pauses an animation. Whoever plays one sees the next ones play by themselves. */
  togglePlay() {
    if (!this.#item || !isAnimation(this.#item)) return;
    if (this.#blur) return void toast("The image is blurred: its frames would show it");
    if (!this.#animation) this.#play(this.#item);
    else if (this.#animation.isLoaded) this.#animation.toggle();
    else return;
    prefer("play", !this.#animation?.isLoaded || this.#animation.isPlaying);
  }

  async #play(/** @type {Item} */ item) {
    const animation = new Animation(item, () => {
      this.#tools.play.setAttribute("aria-pressed", String(animation.isPlaying));
      announce(animation.isPlaying ? "Playing" : "Paused");
    });
    this.#forgetAnimation();
    this.#animation = animation;
    this.#tools.play.setAttribute("aria-busy", "true");
    try {
      await animation.load();
    } catch (/** @type {any} */ error) {
      if (this.#animation === animation) {
        this.#forgetAnimation();
        toast(`The frames cannot be shown: ${error.message}`, { bad: true });
      }
    }
    if (this.#animation !== animation) return animation.leave();
    this.#tools.play.setAttribute("aria-busy", "false");
    this.#heat = null;
    this.#native = false;
    this.draw();
    animation.play();
  }

  #forgetAnimation() {
    this.#animation?.leave();
    this.#animation = null;
    this.#tools.play.setAttribute("aria-pressed", "false");
    this.#tools.play.setAttribute("aria-busy", "false");
  }

  #redraw(/** @type {"blur" | "native"} */ tool, /** @type {string} */ what, /** @type {boolean} */ on) {
    announce(`${what} ${on ? "on" : "off"}`);
    this.#zoom = 1;
    this.#tools[tool].setAttribute("aria-pressed", String(on));
    this.draw();
  }

  // -- moving and zooming ----------------------------------------------------------------------------------

  #listen() {
    /** @type {[number, number] | null} */
    let from = null;
    this.#frame.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
      if (!this.#isEnlarged) return;
      from = [event.clientX + this.#frame.scrollLeft, event.clientY + this.#frame.scrollTop];
      this.#frame.setPointerCapture(event.pointerId);
    });
    this.#frame.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => { if (from) this.#frame.scrollTo(from[0] - event.clientX, from[1] - event.clientY); });
    for (const end of ["pointerup", "pointercancel"]) this.#frame.addEventListener(end, () => { from = null; });
    this.#frame.addEventListener("wheel", (/** @type {WheelEvent} */ event) => this.#wheel(event), { passive: false });
  }

  /** The wheel enlarges the image around the pointer; in native pixels it scrolls. */
  #wheel(/** @type {WheelEvent} */ event) {
    const image = this.#frame.querySelector("img");
    if (!image || this.#native || this.#heat?.map || !this.#seen || this.isMissing) return;
    event.preventDefault();
    const zoom = Math.min(ZOOM_AT_MOST, Math.max(1, this.#zoom * ZOOM_STEP ** -event.deltaY));
    if (zoom === this.#zoom) return;
    const { left, top, width, height } = drawn(image);
    const at = [(event.clientX - left) / width, (event.clientY - top) / height];
    const fitted = width / this.#zoom;
    this.#zoom = zoom;
    this.#frame.classList.toggle("native", zoom > 1);
    this.#frame.classList.toggle("zoomed", zoom > 1);
    image.classList.toggle("fit", zoom === 1);
    image.style.width = zoom > 1 ? `${fitted * zoom}px` : "";
    if (zoom === 1) return;
    const now = image.getBoundingClientRect();
    this.#frame.scrollBy(now.left + at[0] * now.width - event.clientX, now.top + at[1] * now.height - event.clientY);
  }
}

/** The rectangle in which an image is drawn: with `object-fit: contain` it has margins within its box. */
function drawn(/** @type {HTMLImageElement} */ image) {
  const box = image.getBoundingClientRect();
  const width = Math.min(box.width, (box.height * image.naturalWidth) / image.naturalHeight);
  const height = (width * image.naturalHeight) / image.naturalWidth;
  return { left: box.left + (box.width - width) / 2, top: box.top + (box.height - height) / 2, width, height };
}

function whenLoaded(/** @type {HTMLImageElement} */ image, /** @type {() => void} */ then) {
  if (image.complete) requestAnimationFrame(then);
  else image.addEventListener("load", then, { once: true });
}

/** Describes a heat map in a sentence. */
function heatWords(/** @type {{ largest: number, flat: boolean, same_model: boolean }} */ { largest, flat, same_model: same }) {
  const strongest = flat ? "no spot stands out" : `at most ${largest.toFixed(2)} points of quality`;
  return `By occlusion: red where hiding a spot from the fine stream raises the score more than elsewhere, blue where it lowers it; ${strongest}.${same ? "" : " Made by another model than the one that judged the image."}`;
}
