/** Search. The query is in the address, so a search can be reloaded, shared and revisited with Back. */

import { get } from "../parts/api.js";
import { address, remember } from "../parts/address.js";
import { button, empty, h, replace } from "../parts/dom.js";
import { itemTile } from "../parts/item-tile.js";
import { complain } from "../parts/messages.js";
import { Newest } from "../parts/newest.js";

const STATES = ["open", "escalated", "held", "approved", "rejected", "gold"];
const PAGE = 48;
/** Maximum results that Back restores. */
const PAGES_AT_MOST = 10;

/** The address is `#/search?text=…&queue=…&status=…&label=…&reviewer=…&tenant=…&oldest_first=true`. */
export async function show(main, context, _parts, params) {
  await context.bar.refresh();
  // Reviewers must not be influenced by others' decisions, so they do not get these filters.
  const seesDecisions = context.me.role !== "reviewer";
  const choice = (name, label, every, values) => h("select", { "aria-label": label, name }, h("option", { value: "" }, every), values.map((each) => h("option", { value: each }, each)));
  const input = (name, label, placeholder) => h("input", { name, placeholder, "aria-label": label, maxlength: "256", autocapitalize: "none", spellcheck: "false" });
  const text = h("input", { name: "text", type: "search", placeholder: "Words of a prompt, a note, an id …", "aria-label": "Words", maxlength: "256" });
  const fields = [
    text,
    choice("queue", "Queue", "every queue", context.bar.queues.map((each) => each.name)),
    seesDecisions && choice("status", "State", "every state", STATES),
    seesDecisions && choice("label", "Reason", "every reason", context.about.labels),
    seesDecisions && input("reviewer", "Reviewer", "reviewer"),
    input("tenant", "Tenant", "tenant"),
    h("select", { "aria-label": "Order", name: "oldest_first" }, h("option", { value: "" }, "newest first"), h("option", { value: "true" }, "oldest first")),
  ].filter((field) => field !== false);
  for (const field of fields) {
    const value = params.get(field.name) ?? "";
    // An address may name a queue that no longer exists.
    if (value && field.options && ![...field.options].some((each) => each.value === value)) field.append(h("option", { value }, value));
    field.value = value;
  }
  const results = h("div.tiles");
  const state = h("p.soft", { role: "status" });
  const more = button("More", { hidden: true, onclick: () => load({ further: true }) });
  const newest = new Newest();
  let cursor = null;
  let shown = 0;

  const asked = () => Object.fromEntries(fields.map((field) => [field.name, field.value.trim()]).filter(([, value]) => value));

  /** Requests `pages` of results, or the next page. */
  async function load({ further = false, pages = 1 } = {}) {
    const query = asked();
    try {
      const found = await newest.run(async (signal) => {
        const items = [];
        let next = further ? cursor : null;
        for (let page = 0; page < pages && (page === 0 || next); page += 1) {
          const answer = await get(`/v1/items?${new URLSearchParams({ ...query, limit: String(PAGE), ...(next ? { cursor: next } : {}) })}`, { signal });
          items.push(...answer.items);
          next = answer.cursor;
        }
        return { items, next };
      });
      if (!found) return;
      const { items, next } = found.answer;
      cursor = next;
      more.hidden = !cursor;
      const tiles = items.map((item) => itemTile(item, () => history.replaceState({ focus: item.item_id, shown }, "")));
      if (!further) results.replaceChildren();
      shown = further ? shown + items.length : items.length;
      results.append(...tiles);
      // A page may be empty although there is more, because the desk limits the items that it scans for a page.
      if (!shown && !cursor) replace(results, empty("image", "Nothing found", "Try fewer words, or another queue."));
      replace(state, shown || cursor ? `${shown} shown${cursor ? ", there may be more" : ""}` : "");
    } catch (error) {
      complain(error);
    }
  }

  function search() {
    remember(address("search", asked()));
    history.replaceState(null, "");
    return load();
  }

  const [, ...filters] = fields;
  replace(main, h("div.page", null, h("header", null, h("div", null, h("h1", null, "Search"), h("p", null, "All items that the desk keeps."))),
    h("form.grid-head", { role: "search", onsubmit: (event) => { event.preventDefault(); search(); } }, h("div", { style: { flex: "1", "min-width": "220px" } }, text), h("div.picker", null, filters), h("button.button.primary", null, "Search")),
    state, results, h("div", null, more)));
  for (const field of filters) field.addEventListener("change", search);
  // After Back from an item: restores the number of results and the focus.
  const before = history.state;
  await load({ pages: Math.min(PAGES_AT_MOST, Math.ceil((before?.shown ?? 0) / PAGE) || 1) });
  const tile = before?.focus && results.querySelector(`[data-item="${CSS.escape(before.focus)}"]`);
  (tile || text).focus();
  return () => newest.cancel();
}
