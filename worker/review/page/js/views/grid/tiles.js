/** The tiles of the grid: which are selected, which has the focus, and which images were visible. */

import { h, icon, replace } from "../../parts/dom.js";
import { picture, small } from "../../parts/pictures.js";
import { count, likeliest } from "../../parts/words.js";

/** @typedef {import("../../parts/shelf.js").Lease} Lease */

export class Tiles {
  /** @type {Map<string, HTMLElement>} Tiles by item. */
  #tiles = new Map();
  /** @type {Set<string>} */
  #chosen = new Set();
  /** @type {Set<string>} Items whose image, or a sign that there is none, was drawn. */
  #seen = new Set();
  /** @type {HTMLElement | null} Where a range begins. */
  #anchor = null;
  /** The index of the focused tile, so that the focus stays there after a decision. */
  #at = 0;
  #begun = false;
  #onchange;
  element = h("div.tiles", { role: "listbox", "aria-multiselectable": "true", "aria-label": "Images to review" });

  /** `onchange()` is called when the tiles or the selection change. */
  constructor(/** @type {() => void} */ onchange) {
    this.#onchange = onchange;
  }

  get size() {
    return this.#tiles.size;
  }

  get chosen() {
    return this.#chosen.size;
  }

  /** The items to act on: those that are chosen, else the one in focus. @returns {string[]} */
  get targets() {
    if (this.#chosen.size) return [...this.#chosen];
    const id = this.focused()?.dataset.item;
    return id ? [id] : [];
  }

  /** How many of these images are not loaded yet, so that they cannot have been judged. */
  unseen(/** @type {string[]} */ ids) {
    return ids.filter((id) => !this.#seen.has(id)).length;
  }

  /** How many tiles fit on the screen. */
  get fitting() {
    const style = getComputedStyle(this.element);
    const side = parseFloat(style.getPropertyValue("--side")) || 190;
    const width = this.element.clientWidth || innerWidth;
    const height = this.element.clientHeight || innerHeight - 200;
    return Math.floor(width / (side + 14)) * Math.ceil(height / (side + 84));
  }

  /** Shows these leases, in this order. */
  show(/** @type {Lease[]} */ leases) {
    const order = leases.map((lease) => lease.item_id);
    for (const id of [...this.#tiles.keys()]) if (!order.includes(id)) this.drop(id);
    for (const lease of leases) if (!this.#tiles.has(lease.item_id)) this.#tiles.set(lease.item_id, this.#tile(lease));
    this.element.hidden = !order.length;
    const focused = document.activeElement;
    replace(this.element, order.map((id) => this.#tiles.get(id)));
    // Elements that are inserted again lose the focus.
    if (focused instanceof HTMLElement && this.element.contains(focused)) focused.focus({ preventScroll: true });
    if (order.length && (!this.#begun || document.activeElement === document.body)) {
      this.#begun = true;
      this.focus(this.#tiles.get(order[Math.min(this.#at, order.length - 1)]));
    }
    this.#onchange();
  }

  drop(/** @type {string} */ id) {
    this.#tiles.get(id)?.remove();
    this.#tiles.delete(id);
    this.#chosen.delete(id);
    this.#seen.delete(id);
    this.#onchange();
  }

  /** Draws the pictures again, e.g. blurred. */
  redraw(/** @type {Lease[]} */ leases) {
    for (const lease of leases) this.#fill(this.#tiles.get(lease.item_id)?.querySelector(".picture"), lease);
  }

  #tile(/** @type {Lease} */ lease) {
    const item = lease.items[0];
    const view = h("span.picture");
    const word = item.scores ? likeliest(item.scores).word : item.failure?.reason.replaceAll("_", " ") ?? item.rule;
    const tile = h("button.tile", { type: "button", role: "option", "aria-selected": "false", tabindex: "-1", "data-item": lease.item_id,
      onclick: (/** @type {MouseEvent} */ event) => { if (event.shiftKey) this.range(tile); else this.toggle(tile); }, onfocus: () => this.#rove(tile) },
      view,
      h("span.check", { "aria-hidden": "true" }, icon("check")),
      h("span.text", null,
        h("span.top", null, h("b", null, h("span.unseen", null, "expected quality "), item.scores?.quality.toFixed(2) ?? "–"), h("span.badge.review", null, item.scores && h("span.unseen", null, "most likely "), word)),
        h("span.line", { dir: "auto" }, item.prompt ?? item.generator ?? item.place ?? ""),
        lease.items.length > 1 && h("span.line", null, `${count(lease.items.length - 1, "near duplicate")} with it`)));
    this.#fill(view, lease);
    return tile;
  }

  #fill(/** @type {any} */ view, /** @type {Lease} */ lease) {
    if (!view) return;
    const item = lease.items[0];
    const seen = () => { if (image?.parentElement === view) this.#seen.add(lease.item_id); };
    const none = () => { replace(view, icon("broken")); this.#seen.add(lease.item_id); };
    this.#seen.delete(lease.item_id);
    const image = item.image ? picture(small(item.image), "", { onmissing: none }) : null;
    if (!image) return none();
    replace(view, image);
    if (image.complete && image.naturalWidth) seen();
    else image.addEventListener("load", seen, { once: true });
  }

  // -- focus ---------------------------------------------------------------------------------------------------------

  /** @returns {HTMLElement | undefined} */
  focused() {
    const active = document.activeElement?.closest?.(".tile");
    return /** @type {any} */ (active ?? this.element.children[Math.min(this.#at, this.element.children.length - 1)]);
  }

  focus(/** @type {HTMLElement | undefined} */ tile) {
    if (tile?.classList.contains("tile")) tile.focus({ preventScroll: false });
  }

  #rove(/** @type {HTMLElement} */ tile) {
    this.#at = [...this.element.children].indexOf(tile);
    for (const each of this.#tiles.values()) each.tabIndex = each === tile ? 0 : -1;
  }

  move(/** @type {string} */ key) {
    const tiles = this.#all;
    const at = tiles.indexOf(/** @type {any} */ (this.focused()));
    const top = tiles[0]?.offsetTop;
    const columns = tiles.filter((tile) => tile.offsetTop === top).length || 1;
    /** @type {Record<string, number>} */
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -tiles.length, End: tiles.length };
    this.focus(tiles[Math.min(tiles.length - 1, Math.max(0, at + steps[key]))]);
  }

  // -- selection ------------------------------------------------------------------------------------------------------

  extend(/** @type {string} */ key) {
    const from = this.focused();
    if (!from) return;
    if (!this.#chosen.has(from.dataset.item ?? "")) this.#anchor = from;
    this.move(key);
    this.range(this.focused());
  }

  toggle(/** @type {HTMLElement | undefined} */ tile) {
    const id = tile?.dataset.item;
    if (!tile || !id) return;
    const next = new Set(this.#chosen);
    if (!next.delete(id)) next.add(id);
    this.#anchor = tile;
    this.choose(next);
    this.focus(tile);
  }

  range(/** @type {HTMLElement | undefined} */ tile) {
    if (!tile) return;
    const tiles = this.#all;
    const [from, to] = [tiles.indexOf(this.#anchor ?? tile), tiles.indexOf(tile)].sort((a, b) => a - b);
    this.choose([...this.#chosen, ...tiles.slice(Math.max(0, from), to + 1).map((each) => each.dataset.item ?? "")]);
  }

  chooseAllOrNone() {
    this.choose(this.#chosen.size === this.#tiles.size ? [] : this.#tiles.keys());
  }

  choose(/** @type {Iterable<string>} */ ids) {
    this.#chosen = new Set(ids);
    for (const [id, tile] of this.#tiles) tile.setAttribute("aria-selected", String(this.#chosen.has(id)));
    this.#onchange();
  }

  /** @returns {HTMLElement[]} */
  get #all() {
    return [...this.element.querySelectorAll(".tile")];
  }
}
