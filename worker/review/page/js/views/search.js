/** Finding items: by words, queue and state; leads act on what they find. */

import { get, post } from "../parts/api.js";
import { ask, showItem } from "../parts/dialogs.js";
import { button, empty, h, icon, replace } from "../parts/dom.js";
import { complain, toast } from "../parts/messages.js";
import { picture, small } from "../parts/pictures.js";
import { roleIncludes } from "../parts/roles.js";
import { ago } from "../parts/words.js";

const STATES = ["open", "escalated", "held", "approved", "rejected", "gold"];
const LOOKS = { approved: "approve", rejected: "reject", escalated: "escalate", held: "hold", open: "review" };

export async function show(main, context) {
  await context.bar.refresh();
  const byVotes = context.me.role !== "reviewer";
  const text = h("input", { type: "search", placeholder: "Words of a prompt, a note, an id …", "aria-label": "Words", maxlength: "256" });
  const queue = h("select", { "aria-label": "Queue" }, h("option", { value: "" }, "every queue"), context.bar.queues.map((each) => h("option", { value: each.name }, each.name)));
  const state = h("select", { "aria-label": "State" }, h("option", { value: "" }, "every state"), STATES.map((each) => h("option", { value: each }, each)));
  const reason = h("select", { "aria-label": "Reason" }, h("option", { value: "" }, "every reason"), context.about.labels.map((each) => h("option", { value: each }, each)));
  const order = h("select", { "aria-label": "Order" }, h("option", { value: "" }, "newest first"), h("option", { value: "true" }, "oldest first"));
  const results = h("div.tiles");
  const more = button("More", { onclick: () => run(true) });
  let cursor = null;

  async function run(further = false) {
    const query = new URLSearchParams({ limit: "48" });
    if (text.value.trim()) query.set("text", text.value.trim());
    if (queue.value) query.set("queue", queue.value);
    if (byVotes && state.value) query.set("status", state.value);
    if (byVotes && reason.value) query.set("label", reason.value);
    if (order.value) query.set("oldest_first", order.value);
    if (further && cursor) query.set("cursor", cursor);
    try {
      const page = await get(`/v1/items?${query}`);
      cursor = page.cursor;
      more.hidden = !cursor;
      const tiles = page.items.map((item) => tile(item, () => open(item.item_id, context, () => runAndReturnTo(item.item_id))));
      if (further) results.append(...tiles);
      else replace(results, tiles.length ? tiles : empty("image", "Nothing found", "Try fewer words, or another queue."));
    } catch (error) {
      complain(error);
    }
  }

  /** Something was done to an item: whoever did it goes on where it was. */
  async function runAndReturnTo(id) {
    await run();
    (results.querySelector(`[data-item="${CSS.escape(id)}"]`) ?? text).focus();
  }

  replace(main, h("div.page", null, h("header", null, h("div", null, h("h1", null, "Search"), h("p", null, "Every item that the desk remembers."))),
    h("form.grid-head", { role: "search", onsubmit: (event) => { event.preventDefault(); run(); } }, h("div", { style: { flex: "1", "min-width": "220px" } }, text), h("div.picker", null, queue, byVotes && state, byVotes && reason, order), h("button.button.primary", null, "Search")),
    results, h("div", null, more)));
  for (const select of [queue, state, reason, order]) select.addEventListener("change", () => run());
  await run();
  text.focus();
}

function tile(item, onclick) {
  const view = h("span.picture");
  const none = () => replace(view, icon("broken"));
  if (item.image) replace(view, picture(small(item.image), "", { onmissing: none }));
  else none();
  return h("button.tile", { type: "button", "data-item": item.item_id, onclick }, view,
    h("span.text", null, h("span.top", null, h("b", null, h("span.unseen", null, "quality "), item.scores?.quality.toFixed(2) ?? "–"), h("span.badge", { class: LOOKS[item.status] ?? "" }, item.status)),
      h("span.line", { dir: "auto" }, item.prompt ?? item.place ?? item.event_id), h("span.line", null, `${item.queue} · ${ago(item.created_at)}`)));
}

async function open(id, context, changed) {
  const item = await get(`/v1/items/${encodeURIComponent(id)}`).catch(complain);
  if (!item) return;
  const path = `/v1/items/${encodeURIComponent(id)}`;
  const act = (label, run) => button(label, { onclick: async () => {
    try {
      if ((await run()) === false) return;
      dialog.close();
      toast("Done");
      changed();
    } catch (error) {
      complain(error);
    }
  } });
  const assignTo = async () => {
    const name = await ask("Assign this item", ["Only this person gets it. Without a name everybody does."], { field: "Name", value: item.assignee ?? "", action: "Assign" });
    if (name === null) return false;
    return post(`${path}/assign`, { assignee: name.trim() || null });
  };
  const settled = item.status === "approved" || item.status === "rejected";
  const lead = roleIncludes(context.me.role, "lead") && h("div.why", null,
    item.status !== "open" && act("Reopen", () => post(`${path}/reopen`)),
    item.status === "open" && act("Hold", () => post(`${path}/hold`)),
    item.status === "open" && act("Escalate", () => post(`${path}/escalate`)),
    !settled && act("Assign …", assignTo),
    item.status !== "gold" && act("Test item: approve", () => post(`${path}/gold`, { answer: "approve" })),
    item.status !== "gold" && act("Test item: reject", () => post(`${path}/gold`, { answer: "reject" })));
  const dialog = showItem(item, lead);
}
