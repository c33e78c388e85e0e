/**
 * Decisions on their way to the desk, and what takes them back. The page goes on at once; a decision counts when the desk
 * says that its log has it. What cannot be sent is kept, also over a reload of the tab, and sent again under the same id,
 * which is safe.
 */

import { isReachable, post, Refused, Unreachable } from "./api.js";
import { giveBack } from "./shelf.js";

const AGAIN = 1500;

export class Outbox extends EventTarget {
  /**
   * Events: `sent` {decision, answer}, `refused` {decision, error}, `change`; of what was taken back late: `undone` {id,
   * lease}, `stands` {id, error}. Who keeps the lease of `undone` prevents its default; else it goes back.
   */
  #waiting = [];
  #sending = null;
  #timer = 0;
  #stored;
  #closed = true;
  /** Ids of decisions that the desk may have, as their answer did not come. */
  #unheard = new Set();

  /** Each person has their own: nobody sends what somebody else decided at the same tab. Sends once it is opened. */
  constructor(user) {
    super();
    this.#stored = `sluice.outbox.${user}`;
    try {
      this.#waiting = JSON.parse(sessionStorage.getItem(this.#stored)) ?? [];
    } catch {
      this.#waiting = [];
    }
  }

  get size() {
    return this.#waiting.length;
  }

  /** `unheard`: it was sent before, otherwise, and no answer came. */
  add(decision, { unheard = false } = {}) {
    if (unheard) this.#unheard.add(decision.decision_id);
    this.#put(decision);
  }

  /**
   * Takes a decision on a `lease` back. Resolves with the lease, or with null when the desk does not answer: it is asked
   * again until it does, and `undone` or `stands` tells what it said. Raises Refused.
   */
  async takeBack(decisionId, lease) {
    if (this.#withdraw(decisionId)) return lease;
    await this.settled();
    // What still waits goes first: the desk cannot take back what it has not heard of.
    if (!this.#waiting.length) {
      try {
        return await send({ undo: decisionId });
      } catch (error) {
        if (!passes(error)) throw error;
      }
    }
    this.#put({ undo: decisionId });
    return null;
  }

  /** Resolves when nothing is on its way, or when the desk cannot be reached. */
  async settled() {
    while (this.#waiting.length && isReachable()) await new Promise((done) => setTimeout(done, 20));
  }

  /** Sends what waits, and what comes. */
  open() {
    this.#closed = false;
    this.retry();
  }

  /** Sends no more; what waits is kept for the same person. */
  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  retry() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#pump();
  }

  #put(entry) {
    this.#waiting.push(entry);
    this.#changed();
    this.#pump();
  }

  /** Whether the decision was here alone, so that nobody needs to hear of it. */
  #withdraw(decisionId) {
    const at = this.#waiting.findIndex((entry) => entry.decision_id === decisionId);
    if (at < 0 || this.#waiting[at] === this.#sending || this.#unheard.has(decisionId)) return false;
    this.#waiting.splice(at, 1);
    this.#changed();
    return true;
  }

  async #pump() {
    if (this.#closed || this.#sending || this.#timer || !this.#waiting.length) return;
    const entry = (this.#sending = this.#waiting[0]);
    let answer = null;
    let refusal = null;
    try {
      answer = await send(entry);
    } catch (error) {
      if (passes(error)) {
        this.#sending = null;
        this.#unheard.add(entry.decision_id);
        if (!this.#closed) this.#timer = setTimeout(() => this.retry(), AGAIN);
        return;
      }
      refusal = error;
    }
    this.#sending = null;
    this.#waiting = this.#waiting.filter((other) => other !== entry);
    this.#changed();
    this.#tell(entry, answer, refusal);
    this.#pump();
  }

  #tell(entry, answer, error) {
    const tell = (what, detail) => this.dispatchEvent(new CustomEvent(what, { detail, cancelable: true }));
    if (!entry.undo) tell(...(error ? ["refused", { decision: entry, error }] : ["sent", { decision: entry, answer }]));
    else if (error) tell("stands", { id: entry.undo, error });
    else if (tell("undone", { id: entry.undo, lease: answer })) giveBack([answer]).catch(() => {});
  }

  #changed() {
    try {
      sessionStorage.setItem(this.#stored, JSON.stringify(this.#waiting));
    } catch {
      // Without storage they last as long as the page.
    }
    this.dispatchEvent(new Event("change"));
  }
}

const send = (entry) => (entry.undo ? post(`/v1/decisions/${entry.undo}/undo`) : post("/v1/decisions", entry));

/** Whether it helps to ask again: later, or when the same person has signed in. */
const passes = (error) => error instanceof Unreachable || (error instanceof Refused && error.status === 401);
