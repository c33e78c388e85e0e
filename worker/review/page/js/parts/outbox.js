/**
 * Decisions on their way to the desk, and requests that take them back. The page goes on at once; a decision counts when
 * the desk says that its log has it. What cannot be sent is kept, also over a reload of the tab, and sent again under the
 * same id, which is idempotent.
 */

import { isPassing, isReachable, NotReady, post, refusal } from "./api.js";
import { giveBack } from "./shelf.js";

/**
 * @typedef {"approve" | "reject" | "skip" | "hold" | "escalate"} Outcome
 * @typedef {{ decision_id: string, item_id: string, token: number, outcome: Outcome, labels: string[], note: string | null, seconds_spent?: number }} Decision
 * @typedef {{ undo: string }} Undo
 * @typedef {Decision | Undo} Entry
 * @typedef {import("./shelf.js").Lease} Lease
 */

/** Milliseconds until a request is repeated: the first time, and at most. */
const AGAIN = 1500;
const AGAIN_AT_MOST = 12_000;
/** Decisions in one request; the desk takes at most 60. */
const AT_ONCE = 60;

/** @type {(entry: Entry) => entry is Undo} */
const isUndo = (entry) => "undo" in entry;

/**
 * Events: `sent` {decision, answer}, `refused` {decision, error}, `change`; `waiting` {error}, with the error for which
 * the desk cannot take decisions now, or null when it can again. Of what was taken back late: `undone` {id, lease},
 * `stands` {id, error}. A listener that keeps the lease of `undone` prevents its default; else it goes back.
 */
export class Outbox extends EventTarget {
  /** @type {Entry[]} */
  #waiting = [];
  /** @type {Entry[]} */
  #sending = [];
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #pause = AGAIN;
  #stored;
  #closed = true;
  /** Whether the desk answered that it cannot take decisions now. */
  #refusing = false;
  /** @type {Set<string>} Ids of decisions that the desk may have, as no answer came. */
  #unheard = new Set();

  /** Each person has a separate outbox, so decisions are never sent in another person's name. Starts sending. */
  constructor(/** @type {string} */ user) {
    super();
    this.#stored = `sluice.outbox.${user}`;
    try {
      this.#waiting = JSON.parse(sessionStorage.getItem(this.#stored) ?? "[]");
    } catch {
      this.#waiting = [];
    }
  }

  /** Whether decisions wait because the desk cannot be reached or accepts none now. */
  get isWaiting() {
    return this.#waiting.length > 0 && (!isReachable() || this.#refusing);
  }

  get size() {
    return this.#waiting.length;
  }

  add(/** @type {Decision[]} */ ...decisions) {
    this.#put(...decisions);
  }

  /**
   * Takes a decision on a `lease` back. Resolves with the lease, or with null when the desk does not answer: the request
   * is repeated until it does, and `undone` or `stands` tells the result. Raises Refused.
   * @param {string} decisionId
   * @param {Lease} lease
   * @returns {Promise<Lease | null>}
   */
  async takeBack(decisionId, lease) {
    if (this.#withdraw(decisionId)) return lease;
    await this.settled();
    // Decisions that still wait go first: the desk cannot take back one that it has not received.
    if (!this.#waiting.length) {
      try {
        return await sendUndo({ undo: decisionId });
      } catch (error) {
        if (!isPassing(error)) throw error;
      }
    }
    this.#put({ undo: decisionId });
    return null;
  }

  /** Resolves when everything is sent, or when the desk cannot be reached or takes nothing now. */
  async settled() {
    while (this.#waiting.length && isReachable() && !this.#refusing && !this.#closed) await new Promise((done) => { setTimeout(done, 20); });
  }

  /** Starts sending waiting and new decisions. */
  open() {
    this.#closed = false;
    this.retry();
  }

  /** Stops sending. Waiting decisions are kept for the same person. */
  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /** Retries waiting decisions at once, e.g. after a reconnect. */
  retry() {
    if (this.#closed) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#pump();
  }

  #put(/** @type {Entry[]} */ ...entries) {
    this.#waiting.push(...entries);
    this.#changed();
    this.#pump();
  }

  /** Removes a decision that was never sent; false when the desk may have it. */
  #withdraw(/** @type {string} */ decisionId) {
    const at = this.#waiting.findIndex((entry) => !isUndo(entry) && entry.decision_id === decisionId);
    if (at < 0 || this.#sending.includes(this.#waiting[at]) || this.#unheard.has(decisionId)) return false;
    this.#waiting.splice(at, 1);
    this.#changed();
    return true;
  }

  async #pump() {
    if (this.#closed || this.#sending.length || this.#timer || !this.#waiting.length) return;
    const batch = (this.#sending = this.#nextBatch());
    /** @type {Result[]} */
    let results;
    try {
      results = await send(batch);
    } catch (error) {
      results = batch.map(() => ({ error }));
    }
    this.#sending = [];
    const settled = new Set(batch.filter((_, at) => !isPassing(results[at].error)));
    const failed = results.find(({ error }) => isPassing(error))?.error;
    for (const entry of batch) if (!settled.has(entry) && !isUndo(entry)) this.#unheard.add(entry.decision_id);
    this.#waiting = this.#waiting.filter((entry) => !settled.has(entry));
    if (settled.size) this.#changed();
    this.#setRefusing(failed instanceof NotReady ? failed : null);
    batch.forEach((entry, at) => { if (settled.has(entry)) this.#tell(entry, results[at]); });
    if (failed === undefined) {
      this.#pause = AGAIN;
      this.#pump();
    } else if (!this.#closed) {
      this.#timer = setTimeout(() => this.retry(), this.#pause);
      this.#pause = Math.min(AGAIN_AT_MOST, 2 * this.#pause);
    }
  }

  /** The next decisions to send, or one undo request. The order is kept. */
  #nextBatch() {
    const end = this.#waiting.findIndex(isUndo);
    if (end === 0) return this.#waiting.slice(0, 1);
    return this.#waiting.slice(0, Math.min(AT_ONCE, end < 0 ? this.#waiting.length : end));
  }

  #setRefusing(/** @type {NotReady | null} */ error) {
    if (!error && !this.#refusing) return;
    this.#refusing = error !== null;
    this.dispatchEvent(new CustomEvent("waiting", { detail: { error } }));
  }

  #tell(/** @type {Entry} */ entry, /** @type {Result} */ { answer, error }) {
    const tell = (/** @type {string} */ what, /** @type {object} */ detail) => this.dispatchEvent(new CustomEvent(what, { detail, cancelable: true }));
    if (!isUndo(entry)) {
      if (error) tell("refused", { decision: entry, error });
      else tell("sent", { decision: entry, answer });
    } else if (error) tell("stands", { id: entry.undo, error });
    else if (tell("undone", { id: entry.undo, lease: answer })) giveBack([answer]).catch(() => {});
  }

  #changed() {
    try {
      sessionStorage.setItem(this.#stored, JSON.stringify(this.#waiting));
    } catch {
      // Without storage the decisions last as long as the page.
    }
    this.dispatchEvent(new Event("change"));
  }
}

/** @typedef {{ answer?: any, error?: any }} Result of one entry: either is there. */

/** @type {(entry: Undo) => Promise<Lease>} */
const sendUndo = (entry) => post(`/v1/decisions/${entry.undo}/undo`);

/**
 * The result of each entry, in their order. Raises what the whole request raises.
 * @param {Entry[]} batch
 * @returns {Promise<Result[]>}
 */
async function send(batch) {
  const [first] = batch;
  if (isUndo(first)) return [{ answer: await sendUndo(first) }];
  if (batch.length === 1) return [{ answer: await post("/v1/decisions", first) }];
  /** @type {{ decided?: object, refused?: { kind: string, detail: string } }[]} */
  const answers = await post("/v1/decisions/bulk", { decisions: batch });
  return answers.map(({ decided, refused }) => (refused ? { error: refusal({ type: `urn:sluice:problem:${refused.kind}`, detail: refused.detail }, 409) } : { answer: decided }));
}

