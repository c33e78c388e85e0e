/** One image at a time, by keyboard. */

import { isReachable, post, watchConnection } from "../parts/api.js";
import { address } from "../parts/address.js";
import { watchAway } from "../parts/away.js";
import { button, empty, h, replace } from "../parts/dom.js";
import { waitForQueue } from "../parts/first-queue.js";
import { duplicates, itemPanel } from "../parts/item-panel.js";
import { keyOf, named, setKeys } from "../parts/keys.js";
import { onDeskEvent } from "../parts/live.js";
import { announce, complain, explained, toast } from "../parts/messages.js";
import { described, large, preload } from "../parts/pictures.js";
import { Reasons } from "../parts/reasons.js";
import { LOOK_AGAIN, Shelf } from "../parts/shelf.js";
import { emptyQueue } from "./review/empty-queue.js";
import { Stage } from "./review/stage.js";

/** @typedef {import("../parts/shelf.js").Lease} Lease */

const AHEAD = 4;

/** The address is `#/review/QUEUE`, for its open items, or that with `/escalated` or `/skipped`. */
export async function show(main, context, [queue, special]) {
  await context.bar.refresh();
  const name = queue ?? context.queue;
  if (!name) return waitForQueue(main, context, "review");
  const view = new Review(main, context, name, { escalated: special === "escalated", skipped: special === "skipped" });
  await view.begin();
  return () => view.leave();
}

class Review {
  #main;
  #context;
  #shelf;
  /** @type {(() => void)[]} */
  #listeners = [];
  /** @type {Lease | null} */
  #lease = null;
  /** The index of the near duplicate that is shown. */
  #twin = 0;
  #away = false;
  /** The message that is shown instead of an image, so that the same one is not redrawn. */
  #emptyText = "";
  #stage = new Stage(() => { if (this.#lease) this.#drawSide(); });
  #side = h("aside.side", { "aria-label": "About this image" });
  #pace = h("div.pace", { "aria-hidden": "true" });
  #reasons;
  #buttons;

  constructor(main, context, queue, which) {
    this.#main = main;
    this.#context = context;
    this.#shelf = new Shelf(queue, AHEAD, context.about.lease_seconds, which);
    this.#reasons = new Reasons(context.about.labels);
    const act = (outcome, label, iconName, key, kind = "") => button(label, { key: named(keyOf(outcome, key)), keyId: outcome, iconName, kind, onclick: () => this.#act(outcome) });
    this.#buttons = [act("approve", "Approve", "check", "a", "approve"), act("reject", "Reject", "cross", "r", "reject"), act("skip", "Skip", "skip", "s"), act("escalate", "Escalate", "up", "e"), act("hold", "Hold", "pause", "w")];
    replace(main, h("h1.unseen", null, `Review: ${queue}`), h("div.desk", null, this.#stage.element, this.#side,
      h("div.actions", { role: "group", "aria-label": "Decide" }, ...this.#buttons, h("span.space"), this.#pace)));
    setKeys(main, this.#keys());
  }

  #keys() {
    const act = (key, outcome, label) => ({ key, id: outcome, label, run: () => this.#act(outcome) });
    return [
      { title: "Decide", keys: [
        act("a", "approve", "Approve"), act("r", "reject", "Reject"), act("s", "skip", "Skip: leave it to other reviewers"),
        act("e", "escalate", "Escalate to a lead"), act("w", "hold", "Hold: put aside until a lead reopens it"),
      ] },
      this.#reasons.keys(),
      { title: "Look", keys: [
        ...this.#stage.keys(),
        { key: "d", id: "duplicate", label: "Next of the near duplicates", run: () => this.#lookAt((this.#twin + 1) % (this.#lease?.items.length ?? 1)) },
        { key: "p", id: "split", label: "Judge near duplicates one by one", run: () => this.#split() },
      ] },
    ];
  }

  async begin() {
    const { actions } = this.#context;
    const lost = (event) => this.#lost(event.detail.lease);
    const drawPace = () => this.#drawPace();
    this.#shelf.addEventListener("lost", lost);
    actions.addEventListener("change", drawPace);
    const timer = setInterval(() => { if (!this.#lease) this.#next(); }, LOOK_AGAIN);
    this.#listeners.push(
      () => this.#shelf.removeEventListener("lost", lost),
      () => actions.removeEventListener("change", drawPace),
      () => clearInterval(timer),
      onDeskEvent((event) => { if (!this.#lease && event.queue === this.#shelf.queue) this.#next(); }),
      watchConnection((reachable) => { if (reachable) this.#comeBack(); }),
      watchAway(this.#main, () => this.leave()),
      actions.receive({ queue: this.#shelf.queue, take: (leases, how) => this.#takeBack(leases, how) }));
    for (const lease of actions.claim(this.#shelf.queue).reverse()) this.#shelf.putFirst(lease);
    await this.#next();
  }

  leave() {
    this.#listeners.forEach((forget) => forget());
    this.#listeners = [];
    this.#away = true;
    // Leases of decisions that are being sent were already removed; all others are released.
    return this.#shelf.close();
  }

  /** Shows the first item at once, and fetches more. */
  async #next() {
    if (this.#away) return;
    /** @type {any} */
    let failed = null;
    if (this.#shelf.current !== this.#lease || !this.#lease) this.#draw(this.#shelf.current);
    try {
      await this.#shelf.fill();
    } catch (error) {
      failed = error;
      if (this.#lease) complain(error);
    }
    if (this.#away) return;
    if (!this.#lease && this.#shelf.current) this.#draw(this.#shelf.current);
    if (!this.#lease) await this.#sayEmpty(failed);
    for (const { items } of this.#shelf.leases) preload(items[0].image && large(items[0].image));
  }

  #draw(lease) {
    const before = this.#lease;
    this.#lease = lease;
    this.#twin = 0;
    this.#reasons.set(this.#context.actions.said(lease?.item_id));
    this.#main.querySelector(".desk").toggleAttribute("data-empty", !lease);
    for (const each of this.#buttons) each.disabled = !lease;
    this.#drawPace();
    if (!lease) {
      if (before) this.#clear(h("div.spinner"), "");
      return;
    }
    this.#stage.show(this.#item);
    this.#drawSide();
    this.#side.scrollTop = 0;
    announce(described(this.#item));
  }

  #drawSide() {
    const twins = duplicates(this.#lease, this.#twin, (index) => this.#lookAt(index), () => this.#split());
    const why = h("section.block", null, h("h3", null, "Your reasons"), h("div.reasons", null, this.#reasons.buttons), this.#reasons.note);
    replace(this.#side, h("h2.unseen", null, "About this image"), itemPanel(this.#item, twins, why));
  }

  /** The near duplicate that is shown. */
  get #item() {
    return /** @type {Lease} */ (this.#lease).items[this.#twin];
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
    if (this.#away || this.#lease) return;
    const { icon, title, text, link } = message;
    if (this.#emptyText === title + text) return;
    announce(title);
    this.#clear(empty(icon, title, text, h("div.picker", null, link && h("a.button.primary", { href: link.href }, link.label), h("a.button", { href: address("queues") }, "See the other queues"))), title + text);
  }

  #clear(content, text) {
    this.#emptyText = text;
    replace(this.#side);
    this.#stage.clear(content);
  }

  #drawPace() {
    const { actions, outbox } = this.#context;
    const { decided, seconds } = actions.pace;
    const middle = [...seconds].sort((a, b) => a - b)[seconds.length >> 1];
    replace(this.#pace,
      outbox.isWaiting && h("span", null, h("b", null, String(outbox.size)), "to be sent"),
      h("span", null, h("b", null, String(decided)), "decided"),
      middle !== undefined && h("span", null, h("b", null, `${middle.toFixed(1)} s`), "each"));
  }

  /** After a reconnect: reports leases that expired meanwhile, and loads an image again that failed. */
  async #comeBack() {
    if (this.#lease && this.#stage.isMissing && isReachable()) this.#stage.draw();
    await this.#shelf.check();
    await this.#next();
  }

  // -- actions of the keys ----------------------------------------------------------------------------------------------

  #act(outcome) {
    const lease = this.#lease;
    if (!lease) return;
    if (!this.#stage.seen && (outcome === "approve" || outcome === "reject")) return void toast("The image is not loaded yet");
    this.#shelf.remove(lease.item_id);
    this.#context.actions.act(outcome, [lease], { ...this.#reasons.said, seconds: this.#stage.seconds });
    this.#next();
  }

  /** Called after an undo. A late one is queued behind the current image, so that a key press cannot decide the wrong image. */
  #takeBack(leases, { late }) {
    const behind = late && this.#lease !== null;
    for (const lease of [...leases].reverse()) {
      if (behind) this.#shelf.putSecond(lease);
      else this.#shelf.putFirst(lease);
    }
    if (!behind) this.#draw(this.#shelf.current);
  }

  #lookAt(index) {
    if (!this.#lease || index === this.#twin) return;
    this.#twin = index;
    const within = this.#side.contains(document.activeElement) && document.activeElement?.closest(".twins");
    this.#stage.show(this.#item);
    this.#drawSide();
    if (within) this.#side.querySelector(".twins [aria-pressed=true]")?.focus();
    announce(`Image ${index + 1} of ${this.#lease.items.length}. ${described(this.#item)}`);
  }

  async #split() {
    const lease = this.#lease;
    if (!lease || lease.items.length < 2) return;
    try {
      await post("/v1/clusters/split", { item_ids: [lease.item_id], token: lease.token });
      lease.items = lease.items.slice(0, 1);
      if (this.#lease !== lease) return;
      this.#twin = 0;
      this.#stage.show(this.#item);
      this.#drawSide();
      toast("Each is judged alone now");
    } catch (error) {
      complain(error);
    }
  }

  #lost(lease) {
    if (lease !== this.#lease) return;
    toast("This image is no longer yours: its lease expired", { bad: true });
    this.#lease = null;
    this.#draw(this.#shelf.current);
    this.#next();
  }
}
