/** An item among others, as a link to its own address. */

import { address } from "./address.js";
import { h, icon, replace } from "./dom.js";
import { picture, small } from "./pictures.js";
import { ago } from "./words.js";

/** @type {Record<string, string>} */
const LOOKS = { approved: "approve", rejected: "reject", escalated: "escalate", held: "hold", open: "review" };

/**
 * `onopen` is called when the link is followed; `more` are lines below.
 * @param {any} item
 * @param {() => void} [onopen]
 * @param {any[]} more
 */
export function itemTile(item, onopen, ...more) {
  const view = h("span.picture");
  const none = () => replace(view, icon("broken"));
  if (item.image) replace(view, picture(small(item.image), "", { onmissing: none }));
  else none();
  return h("a.tile", { href: address("item", item.item_id), "data-item": item.item_id, onclick: onopen }, view,
    h("span.text", null, h("span.top", null, h("b", null, h("span.unseen", null, "expected quality "), item.scores?.quality.toFixed(2) ?? "–"), h("span.badge", { class: LOOKS[item.status] ?? "" }, item.status)),
      h("span.line", { dir: "auto" }, item.prompt ?? item.place ?? item.event_id), h("span.line", null, `${item.queue} · ${ago(item.created_at)}`), more));
}
