/** Before the first image was held back there is no queue to review. */

import { empty, replace } from "./dom.js";

/** Says so, and opens `view` on the first queue that comes. Returns how to leave. */
export function waitForQueue(main, context, view) {
  replace(main, empty("image", "Nothing has come yet", "When the gate holds an image back, its queue appears here by itself."));
  const timer = setInterval(async () => {
    await context.bar.refresh().catch(() => {});
    if (context.queue) location.hash = `#/${view}/${encodeURIComponent(context.queue)}`;
  }, 2000);
  return () => clearInterval(timer);
}
