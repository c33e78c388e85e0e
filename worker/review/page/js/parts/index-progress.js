/** How far the desk is in building its index, e.g. after it was started with an empty Redis. */

import { get } from "./api.js";
import { count } from "./words.js";

/** Milliseconds between questions, while the index is built and else. */
const SOON = 2000;
const LATER = 30_000;

/** @typedef {{ phase: string, done: number, total: number }} Progress */

/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

/** Shows the progress on the banner, from now on. */
export function watchIndex(/** @type {import("./banner.js").Banner} */ banner) {
  clearTimeout(timer);
  const look = async () => {
    let isBuilding = false;
    try {
      /** @type {Progress | null} */
      const progress = await get("/v1/index");
      isBuilding = progress !== null;
      banner.progress(progress && progressWords(progress));
    } catch {
      // The banner tells when the desk cannot be reached, and a session that ended leads to the sign-in page.
    }
    timer = setTimeout(look, isBuilding ? SOON : LATER);
  };
  look();
}

/** Asks no more. */
export function forgetIndex() {
  clearTimeout(timer);
}

export function progressWords(/** @type {Progress} */ { phase, done, total }) {
  if (phase === "reading") return `The desk is reading its topics: ${done.toLocaleString("en")} of ${count(total, "record")}. Images that were read can be worked on.`;
  return `The desk is building its index: ${done.toLocaleString("en")} of ${count(total, "item")}. Images that are in it can be worked on.`;
}
