/**
 * Decisions on their way to the desk. The page goes on at once; a decision counts when the desk says that its log has it.
 * What cannot be sent is kept, also over a reload of the tab, and sent again under the same id, which is safe.
 */

import { isReachable, post, Refused, Unreachable } from "./api.js";

const AGAIN = 1500;

export class Outbox extends EventTarget {
  /** Events: `sent` {decision, answer}, `refused` {decision, error}, `change`. */
  #waiting = [];
  #sending = null;
  #timer = 0;
  #stored;
  #closed = false;

  /** Each person has their own: nobody sends what somebody else decided at the same tab. */
  constructor(user) {
    super();
    this.#stored = `sluice.outbox.${user}`;
    try {
      this.#waiting = JSON.parse(sessionStorage.getItem(this.#stored)) ?? [];
    } catch {
      this.#waiting = [];
    }
    if (this.#waiting.length) this.#pump();
  }

  get size() {
    return this.#waiting.length;
  }

  add(decision) {
    this.#waiting.push(decision);
    this.#changed();
    this.#pump();
  }

  /** Takes a decision back before it was sent and returns its item’s id; null when it is on its way or gone. */
  withdraw(decisionId) {
    const at = this.#waiting.findIndex((decision) => decision.decision_id === decisionId);
    if (at < 0 || this.#waiting[at] === this.#sending) return null;
    const [decision] = this.#waiting.splice(at, 1);
    this.#changed();
    return decision.item_id;
  }

  /** Resolves when nothing is on its way, or when the desk cannot be reached. */
  async settled() {
    while (this.#waiting.length && isReachable()) await new Promise((done) => setTimeout(done, 20));
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

  async #pump() {
    if (this.#closed || this.#sending || this.#timer || !this.#waiting.length) return;
    const decision = (this.#sending = this.#waiting[0]);
    try {
      const answer = await post("/v1/decisions", decision);
      this.#done(decision, "sent", { decision, answer });
    } catch (error) {
      this.#sending = null;
      if (error instanceof Unreachable || (error instanceof Refused && error.status === 401)) {
        if (!this.#closed) this.#timer = setTimeout(() => this.retry(), AGAIN);
        return;
      }
      this.#done(decision, "refused", { decision, error });
    }
    this.#pump();
  }

  #done(decision, what, detail) {
    this.#sending = null;
    this.#waiting = this.#waiting.filter((other) => other !== decision);
    this.#changed();
    this.dispatchEvent(new CustomEvent(what, { detail }));
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

