/** The latest actions that can still be undone. */

/**
 * @typedef {{ decision: import("./outbox.js").Decision, lease: import("./shelf.js").Lease }} Act
 * @typedef {{ acts: Act[], title: string, address: string }} Done one step, to one image or to many
 */

export class UndoStack {
  /** @type {{ done: Done, at: number }[]} */
  #entries = [];
  #milliseconds;
  #now;

  /** The time in milliseconds for which an entry can be undone. */
  constructor(/** @type {number} */ milliseconds, now = () => performance.now()) {
    this.#milliseconds = milliseconds;
    this.#now = now;
  }

  push(/** @type {Done} */ done) {
    this.#drop();
    this.#entries.push({ done, at: this.#now() });
  }

  /** Removes and returns the newest entry that is still in time; null when there is none. */
  pop() {
    this.#drop();
    return this.#entries.pop()?.done ?? null;
  }

  /** Whether a decision belongs to the newest entry. */
  isNewest(/** @type {string} */ decisionId) {
    return this.#entries.at(-1)?.done.acts.some(({ decision }) => decision.decision_id === decisionId) ?? false;
  }

  /** Removes a decision that was refused, so that it cannot be undone. */
  forget(/** @type {string} */ decisionId) {
    for (const { done } of this.#entries) done.acts = done.acts.filter(({ decision }) => decision.decision_id !== decisionId);
    this.#entries = this.#entries.filter(({ done }) => done.acts.length > 0);
  }

  #drop() {
    const now = this.#now();
    this.#entries = this.#entries.filter(({ at }) => now - at <= this.#milliseconds);
  }
}
