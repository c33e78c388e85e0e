/** The items that are ours for a while: leased ahead, kept by heartbeat, given back when we leave. */

import { call, post } from "./api.js";

/** Milliseconds after which a queue that had nothing is asked again. */
export const LOOK_AGAIN = 10_000;

const BEAT_SHARE = 3;
/** A lease is kept after a third of its time, so two lost heartbeats do no harm. */

export class Shelf extends EventTarget {
  /** Events: `lost` {lease} when somebody else may have an item. */
  #leases = [];
  #filling = null;
  #again = false;
  #timer;
  #closed = false;
  /** A request for leases whose answer has not come, or will not: the desk may have granted it. */
  #unheard = null;
  #hidden = () => this.close();

  /** Keeps up to `ahead` leases of a queue. `escalated` ones are for leads. */
  constructor(queue, ahead, leaseSeconds, { escalated = false } = {}) {
    super();
    this.queue = queue;
    this.escalated = escalated;
    this.ahead = ahead;
    this.#timer = setInterval(() => this.#beat(), (leaseSeconds * 1000) / BEAT_SHARE);
    addEventListener("pagehide", this.#hidden);
  }

  get leases() {
    return this.#leases;
  }

  get current() {
    return this.#leases[0] ?? null;
  }

  /** Leases until there are `ahead`, or no more. One request at a time; who asks meanwhile has it asked once more. */
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
    const body = { count: wanted, escalated: this.escalated, request_id: this.#unheard };
    const leases = await post(`/v1/queues/${encodeURIComponent(this.queue)}/leases`, body);
    this.#unheard = null;
    if (this.#closed) return; // and have withdrawn the request
    const known = new Set(this.#leases.map((lease) => lease.item_id));
    this.#leases.push(...leases.filter((lease) => !known.has(lease.item_id)));
  }

  /** Takes an item off the shelf: it was decided, skipped or lost. */
  remove(itemId) {
    const at = this.#leases.findIndex((lease) => lease.item_id === itemId);
    return at < 0 ? null : this.#leases.splice(at, 1)[0];
  }

  /** Puts a lease in front: a decision was taken back. */
  putFirst(lease) {
    this.#put(lease, 0);
  }

  /** Puts a lease behind the one that is looked at. */
  putSecond(lease) {
    this.#put(lease, 1);
  }

  #put(lease, at) {
    if (this.#closed) return void giveBack([lease]).catch(() => {});
    this.remove(lease.item_id);
    this.#leases.splice(at, 0, lease);
  }

  async #beat() {
    const leases = [...this.#leases];
    if (!leases.length) return;
    let beats;
    try {
      beats = await post("/v1/leases/heartbeat", { leases: leases.map(held) });
    } catch {
      return; // the connection's own message tells; what ran out meanwhile shows with the next heartbeat
    }
    for (const { item_id: itemId, expires_at: expiresAt } of beats) {
      const lease = leases.find((each) => each.item_id === itemId);
      if (expiresAt) lease.expires_at = expiresAt;
      else if (this.#leases.includes(lease)) {
        this.remove(itemId);
        this.dispatchEvent(new CustomEvent("lost", { detail: { lease } }));
      }
    }
  }

  /** Looks at once, after the connection came back. */
  check() {
    return this.#beat();
  }

  /**
   * Resolves when the items are given back, so that who comes next can have them, and those too that were asked for.
   * Also while the tab is being closed; what does not arrive runs out by itself.
   */
  async close() {
    this.#closed = true;
    clearInterval(this.#timer);
    removeEventListener("pagehide", this.#hidden);
    const leases = this.#leases;
    this.#leases = [];
    if (leases.length || this.#unheard) await giveBack(leases, this.#unheard).catch(() => {});
  }
}

export const held = (lease) => ({ item_id: lease.item_id, token: lease.token });

/** Gives leases back, and those that a `request` was granted. Raises Refused or Unreachable. */
export const giveBack = (leases, request = null) => call("POST", "/v1/leases/release", { leases: leases.map(held), requests: request ? [request] : [] }, { keepalive: true });
