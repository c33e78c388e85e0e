/** Resized images: preloads and shows them, and explains why one cannot be shown. */

import { h, icon } from "./dom.js";
import { preference } from "./preferences.js";
import { likeliest } from "./words.js";

/** @type {Record<string, string>} */
const WORDS = {
  "image-not-found": "The image is no longer where it was",
  "access-denied": "The desk may not read the image",
  "hash-mismatch": "The image was changed after it was judged",
  "undecodable-image": "The file is broken",
  "unsupported-format": "The file is not an image",
  "image-too-large": "The image is too large to show",
  "reference-refused": "The image lies where the desk may not read",
  "no-image": "The event named no image",
};

/** The rendition to show, large or small. While blur is on, only blurred renditions are requested. */
export const large = (image) => (preference("blur", false) ? image.blurred : image.screen);
export const small = (image) => (preference("blur", false) ? image.blurred : image.thumbnail);

const ahead = new Map();
const KEPT = 24;

/** Loads and decodes a rendition before it is needed. */
export function preload(address) {
  if (!address || ahead.has(address)) return;
  const image = new Image();
  image.decoding = "async";
  image.src = address;
  ahead.set(address, image);
  image.decode().catch(() => ahead.delete(address));
  while (ahead.size > KEPT) ahead.delete(ahead.keys().next().value);
}

/** The element for a rendition: the one loaded ahead, if there is one. `onmissing(word, sentence)` when there is none to see. */
export function picture(/** @type {string} */ address, /** @type {string} */ alt, /** @type {any} */ { onmissing, ...properties } = {}) {
  const known = ahead.get(address);
  ahead.delete(address);
  const image = known ?? new Image();
  image.alt = alt;
  image.draggable = false;
  Object.assign(image, properties);
  const failed = async () => {
    /** @type {import("./api.js").ProblemBody} */
    const problem = await fetch(address).then((response) => (response.ok ? {} : response.json())).catch(() => ({}));
    const kind = (problem.type ?? "").split(":").pop() ?? "";
    onmissing?.(WORDS[kind] ?? "The image cannot be shown now", problem.detail ?? "The connection to the desk was lost.");
  };
  if (known?.complete && !known.naturalWidth) failed();
  image.addEventListener("error", failed, { once: true });
  if (!known) image.src = address;
  return image;
}

/**
 * Width and height of the original of a rendition that is loaded, or null. They come with the rendition, which the
 * browser still has, so the desk is not asked again.
 */
export async function originalSize(address) {
  const answer = await fetch(address, { cache: "force-cache" }).catch(() => null);
  answer?.body?.cancel().catch(() => {});
  const [width, height] = ["x-image-width", "x-image-height"].map((name) => Number(answer?.headers.get(name)));
  return width && height ? { width, height } : null;
}

export function missing(title, detail) {
  return h("div.missing", null, icon("broken"), h("b", null, title), h("p", null, detail));
}

/** What a screen reader says instead of the image. */
export function described(item) {
  const score = item.scores ? `expected quality ${item.scores.quality.toFixed(2)} of 5, most likely ${likeliest(item.scores).word}` : "not judged";
  const frames = item.scores?.frames > 1 ? `, animation of ${item.scores.frames} frames, the worst is frame ${(item.scores.worst_frame ?? 0) + 1}` : "";
  return `Image to review, ${score}${frames}${item.prompt ? `, prompt: ${item.prompt.slice(0, 200)}` : ""}`;
}
