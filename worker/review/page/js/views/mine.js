/** The reviewer's own decisions, with undo while that is possible. */

import { get, post } from "../parts/api.js";
import { address } from "../parts/address.js";
import { button, empty, h, replace } from "../parts/dom.js";
import { outcomeWords } from "../parts/item-panel.js";
import { itemTile } from "../parts/item-tile.js";
import { onQuietDesk } from "../parts/live.js";
import { complain } from "../parts/messages.js";
import { Newest } from "../parts/newest.js";
import { ago } from "../parts/words.js";

const PAGE = 48;
const LOOK_EVERY = 2000;
const CAN_BE_UNDONE = new Set(["approve", "reject", "skip", "hold", "escalate"]);

/** The address is `#/mine`. */
export async function show(main, context) {
  const results = h("div.tiles");
  const more = button("More", { hidden: true, onclick: () => load(true).catch(complain) });
  const newest = new Newest();
  let cursor = null;

  async function load(further = false) {
    const query = new URLSearchParams({ reviewer: context.me.user, limit: String(PAGE) });
    if (further && cursor) query.set("cursor", cursor);
    const found = await newest.run((signal) => get(`/v1/items?${query}`, { signal }));
    if (!found) return;
    cursor = found.answer.cursor;
    more.hidden = !cursor;
    const tiles = found.answer.items.map((item) => ({ item, act: item.history.findLast(({ by }) => by === context.me.user) })).filter(({ act }) => act)
      .sort((a, b) => Date.parse(b.act.at) - Date.parse(a.act.at)).map(({ item, act }) => entry(item, act));
    if (!further) results.replaceChildren();
    results.append(...tiles);
    if (!results.children.length && !cursor) replace(results, empty("clock", "You have not decided anything yet", "What you decide, skip, hold or escalate is listed here.", h("a.button", { href: address("review") }, "Review")));
  }

  function entry(item, act) {
    const badge = h("span.badge", { class: act.outcome }, outcomeWords(act));
    const tile = itemTile(item, undefined, h("span.line", null, "You: ", badge, ` ${ago(act.at)}`), (act.labels.length > 0 || act.note) && h("span.line", { dir: "auto" }, [act.labels.join(", "), act.note].filter(Boolean).join(" · ")));
    const left = context.about.undo_seconds * 1000 - (Date.now() - Date.parse(act.at));
    const undo = CAN_BE_UNDONE.has(act.outcome) && item.history.at(-1) === act && left > 0 && button("Take back", { iconName: "undo", "aria-label": `Take back: ${outcomeWords(act)}, ${item.prompt ?? item.event_id}`, onclick: () => takeBack(act, item) });
    if (undo) setTimeout(() => undo.remove(), left);
    return h("div.entry", null, tile, undo);
  }

  async function takeBack(act, item) {
    try {
      const lease = await post(`/v1/decisions/${act.decision_id}/undo`);
      context.actions.handOver([lease], address("review", item.queue));
    } catch (error) {
      complain(error);
    }
  }

  replace(main, h("div.page", null, h("header", null, h("div", null, h("h1", null, "My decisions"), h("p", null, `Your recent decisions. For ${context.about.undo_seconds} seconds you can undo them; later a lead can reopen the item.`))), results, h("div", null, more)));
  await load();
  // The list does not change while the reviewer has scrolled down.
  const forget = onQuietDesk(() => { if (results.children.length <= PAGE && !results.contains(document.activeElement)) load().catch(() => {}); }, LOOK_EVERY);
  return () => { forget(); newest.cancel(); };
}
