/** Of several requests for one place on the page only the newest may draw: a late answer never replaces a newer one. */

export class Newest {
  /** @type {AbortController | null} */
  #controller = null;

  /**
   * Runs `request(signal)` and cancels the one before it. Resolves with `{ answer }`, or with null when a newer request
   * was begun meanwhile; errors of such a request are dropped with it.
   * @template T
   * @param {(signal: AbortSignal) => Promise<T>} request
   * @returns {Promise<{ answer: T } | null>}
   */
  async run(request) {
    this.#controller?.abort();
    const mine = new AbortController();
    this.#controller = mine;
    try {
      const answer = await request(mine.signal);
      return mine.signal.aborted ? null : { answer };
    } catch (error) {
      if (mine.signal.aborted) return null;
      throw error;
    }
  }

  /** Cancels the request in progress, if any. */
  cancel() {
    this.#controller?.abort();
    this.#controller = null;
  }
}
