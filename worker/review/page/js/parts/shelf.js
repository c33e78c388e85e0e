/** The items leased to this page: fetched ahead, kept by heartbeats, released when the page is left. */

/**
 * @typedef {{ item_id: string, event_id: string, queue: string, prompt: string | null, image: Record<string, string> | null, scores: any, [more: string]: any }} Item
 * @typedef {{ queue: string, item_id: string, token: number, expires_at: string, items: Item[] }} Lease
 */

import { call, post } from "./api.js";

/** Milliseconds between requests to an empty queue. */
export const LOOK_AGAIN = 10_000;

/** A heartbeat is sent after a third of the lease time, so two may be lost. */
const BEAT_SHARE = 3;

export class Shelf extends EventTarget {
  /** Events: `lost` {lease} when somebody else may have an item. */
  /** @type {Lease[]} */
  #leases = [];
  /** @type {Promise<void> | null} */
  #filling = null;
  #again = false;
  #timer;
  #closed = false;
  #beatEvery;
  /** When the last heartbeat was sent, by the wall clock: it goes on while a laptop sleeps. */
  #beatAt = Date.now();
  /** @type {string | null} A request for leases without an answer yet: the desk may have granted it. */
  #unheard = null;
  #hidden = () => void this.close();
  /** Timers stop in a frozen tab and a sleeping laptop, so expired leases are checked at once afterwards. */
  #visible = () => { if (document.visibilityState === "visible" && Date.now() - this.#beatAt > this.#beatEvery) this.#beat(); };

  /**
   * Keeps up to `ahead` leases of a queue: of its open items, its `escalated` ones (for leads), or those that this
   * reviewer `skipped`.
   * @param {string} queue
   * @param {number} ahead
   * @param {number} leaseSeconds
   * @param {{ escalated?: boolean, skipped?: boolean }} [which]
   */
  constructor(queue, ahead, leaseSeconds, { escalated = false, skipped = false } = {}) {
    super();
    this.queue = queue;
    this.which = { escalated, skipped };
    this.ahead = ahead;
    this.#beatEvery = (leaseSeconds * 1000) / BEAT_SHARE;
    this.#timer = setInterval(() => this.#beat(), this.#beatEvery);
    addEventListener("pagehide", this.#hidden);
    document.addEventListener("visibilitychange", this.#visible);
  }

  get leases() {
    return this.#leases;
  }

  get current() {
    return this.#leases[0] ?? null;
  }

  /** Leases items until there are `ahead`, or no more. One request at a time; a call during a request starts one more. */
  fill() {
    this.#again = true;
    this.#filling ??= this.#fillAll().finally(() => (this.#filling = null));
    return this.#filling;
  }

  async #fillAll() {
    while (this.#again) {
      this.#again = false;
      await this.#fill();
    }
  }

  async #fill() {
    const wanted = this.ahead - this.#leases.length;
    if (wanted <= 0 || this.#closed) return;
    if (this.#unheard) await giveBack([], this.#unheard);
    if (this.#closed) return;
    this.#unheard = crypto.randomUUID();
    const body = { count: wanted, ...this.which, request_id: this.#unheard };
    const leases = await post(`/v1/queues/${encodeURIComponent(this.queue)}/leases`, body);
    this.#unheard = null;
    if (this.#closed) return; // close() has withdrawn the request
    const known = new Set(this.#leases.map((lease) => lease.item_id));
    this.#leases.push(...leases.filter((lease) => !known.has(lease.item_id)));
  }

  /** Removes an item that was decided, skipped or lost; its lease, or null. */
  remove(/** @type {string} */ itemId) {
    const at = this.#leases.findIndex((lease) => lease.item_id === itemId);
    return at < 0 ? null : this.#leases.splice(at, 1)[0];
  }

  /** Puts a lease first, after an undo. */
  putFirst(/** @type {Lease} */ lease) {
    this.#put(lease, 0);
  }

  /** Puts a lease behind the current one. */
  putSecond(/** @type {Lease} */ lease) {
    this.#put(lease, 1);
  }

  #put(/** @type {Lease} */ lease, /** @type {number} */ at) {
    if (this.#closed) return void giveBack([lease]).catch(() => {});
    this.remove(lease.item_id);
    this.#leases.splice(at, 0, lease);
  }

  async #beat() {
    const leases = [...this.#leases];
    this.#beatAt = Date.now();
    if (!leases.length) return;
    /** @type {{ item_id: string, expires_at: string | null }[]} */
    let beats;
    try {
      beats = await post("/v1/leases/heartbeat", { leases: leases.map(held) });
    } catch {
      return; // the page shows the lost connection; expired leases show with the next heartbeat
    }
    for (const { item_id: itemId, expires_at: expiresAt } of beats) {
      const lease = leases.find((each) => each.item_id === itemId);
      if (!lease) continue;
      if (expiresAt) lease.expires_at = expiresAt;
      else if (this.#leases.includes(lease)) {
        this.remove(itemId);
        this.dispatchEvent(new CustomEvent("lost", { detail: { lease } }));
      }
    }
  }

  /** Checks the leases at once, after a reconnect. */
  check() {
    return this.#beat();
  }

  /**
   * Resolves when the items, and those that were asked for, are given back, so that others can have them. It also works
   * while the tab is being closed; a lease whose release does not arrive runs out by itself.
   */
  async close() {
    this.#closed = true;
    clearInterval(this.#timer);
    removeEventListener("pagehide", this.#hidden);
    document.removeEventListener("visibilitychange", this.#visible);
    const leases = this.#leases;
    this.#leases = [];
    if (leases.length || this.#unheard) await giveBack(leases, this.#unheard).catch(() => {});
  }
}

export const held = (/** @type {Lease} */ lease) => ({ item_id: lease.item_id, token: lease.token });

/**
 * Gives leases back, and those that a `request` was granted. Raises Refused or Unreachable.
 * @type {(leases: Lease[], request?: string | null) => Promise<null>}
 */
export const giveBack = (leases, request = null) => call("POST", "/v1/leases/release", { leases: leases.map(held), requests: request ? [request] : [] }, { keepalive: true });
