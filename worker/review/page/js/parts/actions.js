/**
 * What a reviewer does to leased images, and taking it back. One stack over every action, kept over a change of view: the
 * newest action that is still in time is taken back first.
 */

import { keyOf, named } from "./keys.js";
import { complain, toast } from "./messages.js";
import { giveBack } from "./shelf.js";
import { UndoStack } from "./undo-stack.js";
import { count, shortened } from "./words.js";

/**
 * @typedef {import("./outbox.js").Outcome} Outcome
 * @typedef {import("./outbox.js").Decision} Decision
 * @typedef {import("./shelf.js").Lease} Lease
 * @typedef {{ labels: string[], note: string | null }} Said
 * @typedef {{ queue: string, take: (leases: Lease[], how: { late: boolean }) => void }} Receiver
 * @typedef {import("./undo-stack.js").Done} Done
 */

/** @type {Record<Outcome, string>} */
const DONE = { approve: "Approved", reject: "Rejected", skip: "Skipped", hold: "Put on hold", escalate: "Escalated" };
const VOTES = new Set(["approve", "reject"]);

/** Events: `change`, when the numbers of `pace` have changed. */
export class Actions extends EventTarget {
  #outbox;
  #undoSeconds;
  #stack;
  /** @type {Receiver | null} The view that shows images of one queue. */
  #receiver = null;
  /** @type {Lease[]} Taken back while another view was shown; for the view that opens next. */
  #handedOver = [];
  /** @type {Map<string, Said>} Reasons and note of what was taken back, by item. */
  #said = new Map();
  /** @type {Map<string, { decision: Decision, lease: Lease }>} Sent, and not answered yet. */
  #pending = new Map();
  /** @type {Map<string, { decision: Decision, title: string, removeToast: () => void }>} To be taken back when the desk answers. */
  #late = new Map();
  #removeOffer = () => {};
  /** Votes since the page was loaded, and the seconds that each took. */
  pace = { decided: 0, seconds: /** @type {number[]} */ ([]) };

  /**
   * @param {import("./outbox.js").Outbox} outbox
   * @param {number} undoSeconds
   */
  constructor(outbox, undoSeconds) {
    super();
    this.#outbox = outbox;
    this.#undoSeconds = undoSeconds;
    this.#stack = new UndoStack(undoSeconds * 1000);
    const on = (/** @type {string} */ kind, /** @type {(event: CustomEvent) => void} */ listener) => outbox.addEventListener(kind, /** @type {EventListener} */ (listener));
    on("sent", ({ detail }) => this.#sent(detail));
    on("refused", ({ detail }) => this.#refused(detail));
    on("undone", (event) => this.#undone(event));
    on("stands", ({ detail }) => this.#stands(detail));
    outbox.addEventListener("change", () => this.dispatchEvent(new Event("change")));
  }

  /** Undone images of this queue are given to this view, until the returned function is called. */
  receive(/** @type {Receiver} */ receiver) {
    this.#receiver = receiver;
    return () => { if (this.#receiver === receiver) this.#receiver = null; };
  }

  /** Images of a queue that were undone, or chosen with "Decide now", in another view. */
  claim(/** @type {string} */ queue) {
    const mine = this.#handedOver.filter((lease) => lease.queue === queue);
    this.#handedOver = [];
    return mine;
  }

  /** Shows a lease in the view at `address`, which claims it. */
  handOver(/** @type {Lease[]} */ leases, /** @type {string} */ address) {
    this.#handedOver = leases;
    if (location.hash === address) dispatchEvent(new HashChangeEvent("hashchange"));
    else location.hash = address;
  }

  /** Reasons and note of an undone action. */
  said(/** @type {string | undefined} */ itemId) {
    return itemId === undefined ? undefined : this.#said.get(itemId);
  }

  /**
   * Does `outcome` to the items of these leases, in one undoable step.
   * @param {Outcome} outcome
   * @param {Lease[]} leases
   * @param {Said & { seconds?: number }} said
   */
  act(outcome, leases, { labels, note, seconds }) {
    const acts = leases.map((lease) => ({
      lease,
      decision: { decision_id: crypto.randomUUID(), item_id: lease.item_id, token: lease.token, outcome, labels, note, ...(seconds === undefined ? {} : { seconds_spent: seconds }) },
    }));
    const done = { acts, title: title(outcome, leases), address: location.hash };
    for (const { decision, lease } of acts) {
      this.#said.delete(lease.item_id);
      this.#pending.set(decision.decision_id, { decision, lease });
    }
    if (VOTES.has(outcome)) {
      this.pace.decided += leases.length;
      if (seconds !== undefined) this.pace.seconds.push(seconds);
    }
    this.#stack.push(done);
    this.#outbox.add(...acts.map(({ decision }) => decision));
    this.#offerUndo(done);
  }

  #offerUndo(/** @type {Done} */ done) {
    this.#removeOffer();
    const waits = this.#outbox.isWaiting ? ", to be sent" : "";
    this.#removeOffer = toast(done.title + waits, { seconds: this.#undoSeconds, timer: true, kept: true, action: { label: "Undo", key: named(keyOf("undo", "u")), run: () => this.undo() } });
  }

  /** Undoes the latest action that can still be undone, of any kind and from any view. */
  async undo() {
    const done = this.#stack.pop();
    if (!done) return void toast(`There is nothing to undo: an action can be taken back for ${count(this.#undoSeconds, "second")}`);
    this.#removeOffer();
    const results = await Promise.allSettled(done.acts.map(({ decision, lease }) => this.#outbox.takeBack(decision.decision_id, lease)));
    /** @type {Lease[]} */
    const leases = [];
    /** @type {Decision[]} */
    const late = [];
    results.forEach((result, at) => {
      const { decision } = done.acts[at];
      if (result.status === "rejected") complain(result.reason);
      else if (result.value === null) late.push(decision);
      else {
        this.#takenBack(decision);
        leases.push(result.value);
      }
    });
    if (late.length) {
      const removeToast = toast(late.length > 1 ? `${count(late.length, "decision")} will be taken back as soon as the desk answers` : "It will be undone when the desk answers");
      for (const decision of late) this.#late.set(decision.decision_id, { decision, title: done.title, removeToast });
    }
    if (leases.length) this.#deliver(leases, done);
  }

  #deliver(/** @type {Lease[]} */ leases, /** @type {Done} */ { title: what, address }) {
    const text = `Taken back: ${lower(what)}`;
    if (this.#receiver?.queue === leases[0].queue) this.#receiver.take(leases, { late: false });
    else this.handOver(leases, address);
    toast(text, { kept: true });
  }

  #takenBack(/** @type {Decision} */ decision) {
    this.#pending.delete(decision.decision_id);
    this.#said.set(decision.item_id, decision);
    this.#uncount(decision);
  }

  #uncount(/** @type {Decision} */ { outcome, seconds_spent: seconds }) {
    if (!VOTES.has(outcome)) return;
    this.pace.decided = Math.max(0, this.pace.decided - 1);
    const at = seconds === undefined ? -1 : this.pace.seconds.lastIndexOf(seconds);
    if (at >= 0) this.pace.seconds.splice(at, 1);
    this.dispatchEvent(new Event("change"));
  }

  // -- the desk's answers --------------------------------------------------------------------------------------------

  #sent(/** @type {{ decision: Decision, answer: any }} */ { decision, answer }) {
    this.#pending.delete(decision.decision_id);
    if (answer.resolution === "escalate" && this.#stack.isNewest(decision.decision_id)) toast("The votes tie, so a lead decides");
  }

  #refused(/** @type {{ decision: Decision, error: any }} */ { decision, error }) {
    if (this.#stack.isNewest(decision.decision_id)) this.#removeOffer();
    this.#stack.forget(decision.decision_id);
    const known = this.#pending.get(decision.decision_id);
    this.#pending.delete(decision.decision_id);
    this.#uncount(decision);
    const what = known ? `“${about(known.lease)}”: ${DONE[decision.outcome].toLowerCase()} did not count` : "Your last decision did not count";
    if (error.kind === "lease-lost") return void toast(`${what}. The lease had run out, and somebody else may have the image`, { bad: true, seconds: 12 });
    toast(`${what}: ${error.message}`, { bad: true, seconds: 12 });
    if (!known) return;
    // The lease is kept, so the image can be decided again with the same reasons and note.
    this.#said.set(decision.item_id, decision);
    if (this.#receiver?.queue === known.lease.queue) this.#receiver.take([known.lease], { late: true });
    else giveBack([known.lease]).catch(() => {});
  }

  /** A delayed undo succeeded at the desk. */
  #undone(/** @type {CustomEvent} */ event) {
    const { id, lease } = event.detail;
    const late = this.#late.get(id);
    this.#late.delete(id);
    late?.removeToast();
    if (late) this.#takenBack(late.decision);
    const what = late ? `Taken back: ${lower(late.title)}` : "Taken back";
    const receiver = this.#receiver;
    if (!receiver || receiver.queue !== lease.queue) return void toast(`${what}. The image waits in “${lease.queue}” again`);
    event.preventDefault();
    receiver.take([lease], { late: true });
    toast(`${what}. That image comes next`);
  }

  #stands(/** @type {{ id: string, error: Error }} */ { id, error }) {
    const late = this.#late.get(id);
    this.#late.delete(id);
    late?.removeToast();
    toast(`Your decision stands: ${error.message}`, { bad: true, seconds: 12 });
  }
}

/** What was done, to what: `Rejected “a fox in the snow”`, `Approved 5 images`. */
function title(/** @type {Outcome} */ outcome, /** @type {Lease[]} */ leases) {
  const images = leases.reduce((sum, lease) => sum + lease.items.length, 0);
  return images > 1 ? `${DONE[outcome]} ${count(images, "image")}` : `${DONE[outcome]} “${about(leases[0])}”`;
}

const about = (/** @type {Lease} */ lease) => shortened(lease.items[0].prompt ?? lease.items[0].event_id, 40);

const lower = (/** @type {string} */ text) => text[0].toLowerCase() + text.slice(1);
