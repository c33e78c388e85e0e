/** Waits for the first queue, which exists when the first image is sent to review. */

import { address } from "./address.js";
import { empty, replace } from "./dom.js";

/** Says so, and opens `view` on the first queue that appears. Returns a function that stops waiting. */
export function waitForQueue(main, context, view) {
  replace(main, empty("image", "Nothing has come yet", "When the gate sends an image to review, its queue appears here by itself."));
  const timer = setInterval(async () => {
    await context.bar.refresh().catch(() => {});
    if (context.queue) location.hash = address(view, context.queue);
  }, 2000);
  return () => clearInterval(timer);
}
