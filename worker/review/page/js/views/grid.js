/** Many images at once: select, then act on all of them. */

import { watchConnection } from "../parts/api.js";
import { address } from "../parts/address.js";
import { watchAway } from "../parts/away.js";
import { showItem } from "../parts/dialogs.js";
import { button, empty, h, replace } from "../parts/dom.js";
import { waitForQueue } from "../parts/first-queue.js";
import { keyOf, named, setKeys } from "../parts/keys.js";
import { onQuietDesk } from "../parts/live.js";
import { announce, complain, explained, toast } from "../parts/messages.js";
import { applyGrey, prefer, preference } from "../parts/preferences.js";
import { Reasons } from "../parts/reasons.js";
import { LOOK_AGAIN, Shelf } from "../parts/shelf.js";
import { count } from "../parts/words.js";
import { Tiles } from "./grid/tiles.js";
import { emptyQueue } from "./review/empty-queue.js";

/** Minimum number of images to fetch. On a large screen as many as fit, up to the desk's limit. */
const TILES = 24;
const TILES_AT_MOST = 60;

export async function show(main, context, [queue, special]) {
  await context.bar.refresh();
  const name = queue ?? context.queue;
  if (!name) return waitForQueue(main, context, "grid");
  const grid = new Grid(main, context, name, { skipped: special === "skipped" });
  await grid.begin();
  return () => grid.leave();
}

class Grid {
  #main;
  #context;
  #shelf;
  /** @type {(() => void)[]} */
  #listeners = [];
  #away = false;
  #emptyText = "";
  #blur = preference("blur", false);
  #grey = preference("grey", false);
  #tiles = new Tiles(() => this.#tell());
  #nothing = h("div.column", { hidden: true });
  #status = h("p", { role: "status" });
  #reasons;
  #buttons;
  #blurButton;

  constructor(main, context, queue, which) {
    this.#main = main;
    this.#context = context;
    this.#reasons = new Reasons(context.about.labels, { rows: "1", placeholder: "A note for the next action (N)" });
    const act = (outcome, label, iconName, key, kind = "") => button(label, { key: named(keyOf(outcome, key)), keyId: outcome, iconName, kind, onclick: () => this.#act(outcome) });
    this.#buttons = [act("approve", "Approve", "check", "a", "approve"), act("reject", "Reject", "cross", "r", "reject"), act("skip", "Skip", "skip", "s"), act("escalate", "Escalate", "up", "e"), act("hold", "Hold", "pause", "w")];
    this.#blurButton = button("Blur", { key: named(keyOf("blur", "b")), keyId: "blur", iconName: "blur", "aria-pressed": String(this.#blur), onclick: () => this.#toggleBlur() });
    replace(main, h("h1.unseen", null, `Grid: ${queue}`), h("div.grid-page", null,
      h("div.grid-head", null, this.#status, h("span.space"), button("Choose all", { key: "C", onclick: () => this.#tiles.chooseAllOrNone() }), this.#blurButton, button("Fetch more", { key: "F", onclick: () => this.fill() })),
      this.#tiles.element, this.#nothing,
      h("div.actions", { role: "group", "aria-label": "Decide" }, this.#buttons, h("div.why-next", null, h("div.reasons", { role: "group", "aria-label": "Reasons for the next action" }, this.#reasons.buttons), this.#reasons.note))));
    this.#shelf = new Shelf(queue, Math.min(TILES_AT_MOST, Math.max(TILES, this.#tiles.fitting)), context.about.lease_seconds, which);
    setKeys(main, this.#keys());
  }

  #keys() {
    const act = (key, outcome, label) => ({ key, id: outcome, label, run: () => this.#act(outcome) });
    return [
      { title: "Choose", keys: [
        { key: "ArrowRight", label: "Move", also: ["ArrowLeft", "ArrowUp", "ArrowDown", "Home", "End"], repeats: true, run: (_, key) => this.#tiles.move(key) },
        { key: "Shift+ArrowRight", label: "Move and select", shown: "Shift+arrow", also: ["Shift+ArrowLeft", "Shift+ArrowUp", "Shift+ArrowDown"], repeats: true, run: (_, key) => this.#tiles.extend(key.replace("Shift+", "")) },
        { key: " ", label: "Select or deselect", also: ["x"], run: () => this.#tiles.toggle(this.#tiles.focused()) },
        { key: "c", label: "Select all or none", run: () => this.#tiles.chooseAllOrNone() },
        { key: "Escape", label: "Choose none", run: () => this.#tiles.choose([]) },
      ] },
      { title: "Act on the selected images, or the one in focus", keys: [
        act("a", "approve", "Approve"), act("r", "reject", "Reject"), act("s", "skip", "Skip: leave them to other reviewers"),
        act("e", "escalate", "Escalate to a lead"), act("w", "hold", "Hold: put aside until a lead reopens them"),
        { key: "f", label: "Fetch more", run: () => this.fill() },
      ] },
      this.#reasons.keys("Say why, for the next action"),
      { title: "Look", keys: [
        { key: "Enter", label: "Look closely", run: () => this.#look() },
        { key: "b", id: "blur", label: "Blur on and off", run: () => this.#toggleBlur() },
        { key: "g", id: "grey", label: "Grey on and off", run: () => this.#toggleGrey() },
      ] },
    ];
  }

  async begin() {
    const { actions } = this.#context;
    const lost = (event) => {
      this.#tiles.drop(event.detail.lease.item_id);
      toast("An image is no longer yours: its lease expired", { bad: true });
    };
    this.#shelf.addEventListener("lost", lost);
    // An empty grid fills by itself; a grid in use does not change.
    const again = () => { if (!this.#tiles.size) this.fill(); };
    const timer = setInterval(again, LOOK_AGAIN);
    this.#listeners.push(
      () => this.#shelf.removeEventListener("lost", lost),
      () => clearInterval(timer),
      onQuietDesk(again),
      watchConnection((reachable) => { if (reachable) this.#shelf.check().then(again); }),
      watchAway(this.#main, () => this.leave()),
      actions.receive({ queue: this.#shelf.queue, take: (leases) => this.#takeBack(leases) }));
    this.#takeBack(actions.claim(this.#shelf.queue));
    await this.fill();
  }

  leave() {
    this.#listeners.forEach((forget) => forget());
    this.#listeners = [];
    this.#away = true;
    return this.#shelf.close();
  }

  async fill() {
    /** @type {any} */
    let failed = null;
    try {
      await this.#shelf.fill();
    } catch (error) {
      failed = error;
      if (this.#tiles.size) complain(error);
    }
    if (this.#away) return;
    this.#draw();
    if (!this.#tiles.size) await this.#sayEmpty(failed);
  }

  #draw() {
    this.#tiles.show(this.#shelf.leases);
    if (!this.#tiles.size) return;
    this.#nothing.hidden = true;
    this.#emptyText = "";
  }

  /** Shows why there is no image. A desk that does not answer is not reported as an empty queue. */
  async #sayEmpty(failed) {
    let message = failed && { icon: "offline", title: "The images could not be loaded", text: explained(failed), link: null };
    if (!message) {
      try {
        await this.#context.outbox.settled();
        message = emptyQueue(this.#shelf, await this.#context.bar.refresh());
      } catch (error) {
        message = { icon: "offline", title: "The images could not be loaded", text: explained(error), link: null };
      }
    }
    if (this.#away || this.#tiles.size || this.#emptyText === message.title + message.text) return;
    this.#emptyText = message.title + message.text;
    this.#nothing.hidden = false;
    announce(message.title);
    replace(this.#nothing, empty(message.icon, message.title, message.text, h("div.picker", null, message.link && h("a.button.primary", { href: message.link.href }, message.link.label), h("a.button", { href: address("queues") }, "See the other queues"))));
  }

  #tell() {
    replace(this.#status, h("b", null, count(this.#tiles.size, "image")), ` in “${this.#shelf.queue}”`, this.#tiles.chosen > 0 && ` · ${this.#tiles.chosen} chosen`);
    for (const each of this.#buttons) each.disabled = !this.#tiles.size;
  }

  #look() {
    const tile = this.#tiles.focused();
    const lease = this.#shelf.leases.find((each) => each.item_id === tile?.dataset.item);
    if (lease) showItem(lease.items[0]).addEventListener("close", () => this.#tiles.focus(tile));
  }

  // -- acting --------------------------------------------------------------------------------------------------------

  #act(outcome) {
    const ids = this.#tiles.targets;
    const leases = this.#shelf.leases.filter((lease) => ids.includes(lease.item_id));
    if (!leases.length) return;
    const unseen = this.#tiles.unseen(ids);
    if (unseen && (outcome === "approve" || outcome === "reject")) return void toast(`${count(unseen, "image")} of ${leases.length} ${unseen === 1 ? "is" : "are"} not loaded yet, so nothing was decided`);
    for (const lease of leases) {
      this.#shelf.remove(lease.item_id);
      this.#tiles.drop(lease.item_id);
    }
    this.#context.actions.act(outcome, leases, this.#reasons.said);
    this.#reasons.set(undefined);
    if (this.#tiles.size < TILES / 2) this.fill();
    else this.#draw();
  }

  /** After an undo the images are first again, and their reasons and note are kept for the next action. */
  #takeBack(leases) {
    if (!leases.length) return;
    for (const lease of [...leases].reverse()) this.#shelf.putFirst(lease);
    const { labels, note } = this.#reasons.said;
    if (!labels.length && !note) this.#reasons.set(this.#context.actions.said(leases[0].item_id));
    this.#draw();
  }

  #toggleBlur() {
    this.#blur = !this.#blur;
    prefer("blur", this.#blur);
    this.#blurButton.setAttribute("aria-pressed", String(this.#blur));
    announce(`Blur ${this.#blur ? "on" : "off"}`);
    this.#tiles.redraw(this.#shelf.leases);
  }

  #toggleGrey() {
    this.#grey = !this.#grey;
    prefer("grey", this.#grey);
    applyGrey();
    announce(`Grey ${this.#grey ? "on" : "off"}`);
  }
}
