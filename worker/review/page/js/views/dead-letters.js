/** Dead letters, for leads: lists, shows, redrives and drops events that could not be judged. */

import { get, post } from "../parts/api.js";
import { ask, open } from "../parts/dialogs.js";
import { button, h, replace } from "../parts/dom.js";
import { complain, toast } from "../parts/messages.js";
import { ago, count } from "../parts/words.js";

const PAGE = 50;
/** Maximum letters of a request. The desk writes them in one transaction. */
const AT_ONCE = 50;
const AGAIN = 600;
const STATES = [["open", "open"], ["redriven", "redriven"], ["dropped", "dropped"], ["", "every state"]];
const AGES = [["", "any time"], ["3600", "the last hour"], ["86400", "the last day"], ["604800", "the last week"]];
const LOOKS = { open: "reject", redriven: "pass", dropped: "" };

export async function show(main) {
  const text = h("input", { type: "search", placeholder: "Words of the message, an event’s id …", "aria-label": "Words", maxlength: "256" });
  const state = select("State", STATES);
  const reason = select("Reason", [["", "every reason"]]);
  const tenant = select("Tenant", [["", "every tenant"]]);
  const age = select("Failed in", AGES);
  const summary = h("p", { role: "status" });
  const rows = h("tbody");
  const all = h("input", { type: "checkbox", "aria-label": "Choose all that are shown", onchange: () => chooseShown(all.checked) });
  const redrive = button("Redrive", { kind: "primary", onclick: () => act("redrive") });
  const drop = button("Drop …", { kind: "danger", onclick: () => act("drop") });
  const every = button("", { kind: "plain", onclick: chooseEvery });
  const stop = button("Stop", { hidden: true, onclick: () => { stopped = true; } });
  const more = button("More", { onclick: () => load(true).catch(complain) });
  const outcome = h("div", { role: "status" });
  const table = h("div.panel.scroll", { tabindex: "0", role: "region", "aria-label": "Dead letters" }, h("table.letters", null,
    h("thead", null, h("tr", null, h("th", { scope: "col" }, all), ["Event", "Reason", "Tenant", "Failed", "Source", "State"].map((title) => h("th", { scope: "col" }, title)))), rows));
  const chosen = new Set();
  let shown = [];
  let total = 0;
  let stopped = false;
  let busy = false;
  let left = false;
  let turn = 0;

  function query(more = {}) {
    const asked = new URLSearchParams(more);
    for (const [name, field] of [["state", state], ["reason", reason], ["tenant", tenant]]) if (field.value) asked.set(name, field.value);
    if (text.value.trim()) asked.set("text", text.value.trim());
    if (age.value) asked.set("since", new Date(Date.now() - 1000 * Number(age.value)).toISOString());
    return asked;
  }

  async function load(further = false) {
    const mine = ++turn;
    const page = await get(`/v1/dead-letters?${query({ start: further ? shown.length : 0, limit: PAGE })}`);
    if (mine !== turn || left) return;
    shown = further ? [...shown, ...page.letters] : page.letters;
    total = page.count;
    options(reason, "every reason", Object.keys(page.reasons));
    options(tenant, "every tenant", page.tenants);
    table.hidden = !shown.length;
    if (further) rows.append(...page.letters.map(row));
    else replace(rows, shown.map(row));
    more.hidden = shown.length >= total;
    tell(page);
    mark();
    if (!page.is_complete) setTimeout(() => { if (mine === turn && !left && !busy) load().catch(complain); }, AGAIN);
  }

  function tell(page) {
    const reading = page.is_complete ? "" : ` Reading: ${page.read.toLocaleString("en")} of ${count(page.total, "record")} …`;
    const reasons = Object.entries(page.reasons).map(([name, number]) => `${number.toLocaleString("en")} ${name}`).join(", ");
    const out = page.left_out ? ` ${count(page.left_out, "older letter")} can only be found with “sluice dead”.` : "";
    summary.textContent = `${count(total, "letter")}${reasons ? `: ${reasons}` : ""}.${reading}${out}`;
    if (!shown.length && page.is_complete) summary.textContent = "No letters match.";
  }

  function row(letter) {
    const box = h("input", { type: "checkbox", "aria-label": `Choose ${letter.event_id}`, "data-letter": letter.letter_id, onchange: () => { if (box.checked) chosen.add(letter.letter_id); else chosen.delete(letter.letter_id); mark(); } });
    box.checked = chosen.has(letter.letter_id);
    return h("tr", null, h("td", null, box),
      h("td.what", null, button(letter.event_id, { kind: "plain", dir: "auto", onclick: () => look(letter) }), h("p", { dir: "auto" }, letter.message)),
      h("td", null, h("span.badge.reject", null, letter.reason)), h("td", null, letter.tenant ?? "–"),
      h("td", null, h("time", { datetime: letter.failed_at, title: new Date(letter.failed_at).toLocaleString() }, ago(letter.failed_at))),
      h("td", null, `${letter.source.topic}/${letter.source.partition}@${letter.source.offset}`),
      h("td", null, h("span.badge", { class: LOOKS[letter.state] }, letter.state), letter.history.length > 0 && h("p.soft", null, `redriven ${letter.history.length}× before`)));
  }

  function chooseShown(on) {
    for (const { letter_id: id } of shown) if (on) chosen.add(id); else chosen.delete(id);
    for (const box of rows.querySelectorAll("input")) box.checked = on;
    mark();
  }

  async function chooseEvery() {
    try {
      for (const id of await get(`/v1/dead-letters/ids?${query()}`)) chosen.add(id);
      chooseShown(true);
    } catch (error) {
      complain(error);
    }
  }

  function mark() {
    const number = chosen.size;
    redrive.textContent = number ? `Redrive ${number.toLocaleString("en")}` : "Redrive";
    drop.textContent = number ? `Drop ${number.toLocaleString("en")} …` : "Drop …";
    redrive.disabled = drop.disabled = busy || !number;
    every.hidden = busy || total <= shown.length;
    every.textContent = `Choose all ${total.toLocaleString("en")}`;
    stop.hidden = !busy;
    all.checked = shown.length > 0 && shown.every((letter) => chosen.has(letter.letter_id));
  }

  async function act(verb, ids = [...chosen]) {
    const said = verb === "redrive"
      ? await ask(`Redrive ${count(ids.length, "letter")}?`, ["Their events are submitted again, each once. An event that fails again gets a new letter."], { action: "Redrive" })
      : await ask(`Drop ${count(ids.length, "letter")}?`, ["Nothing is deleted: the letters stay, with your name and the reason. Verdicts and review items do not change."], { action: "Drop", field: "Why will these events not be submitted again?", danger: true });
    if (said === null) return;
    if (verb === "drop" && !said.trim()) return void toast("Say why they are dropped", { bad: true });
    await run(verb, ids, verb === "drop" ? said.trim() : "");
  }

  async function run(verb, ids, why) {
    const done = verb === "redrive" ? "redriven" : "dropped";
    const refused = [];
    let acted = 0;
    let before = 0;
    [busy, stopped] = [true, false];
    replace(outcome);
    mark();
    try {
      for (let start = 0; start < ids.length && !stopped && !left; start += AT_ONCE) {
        const part = ids.slice(start, start + AT_ONCE);
        summary.textContent = `${count(start, "letter")} of ${ids.length.toLocaleString("en")} ${done} …`;
        const report = await post(`/v1/dead-letters/${verb}`, { letter_ids: part, reason: why });
        acted += report.done.length;
        before += Object.keys(report.already).length;
        refused.push(...Object.entries(report.refused));
        for (const id of part) chosen.delete(id);
      }
      toast(`${count(acted, "letter")} ${done}${before ? `; others had acted on ${before.toLocaleString("en")} before` : ""}`);
    } catch (error) {
      // Letters that were processed stay processed; the others stay selected.
      complain(error);
    } finally {
      busy = false;
    }
    if (left) return;
    if (refused.length) replace(outcome, h("div.notice.bad", null, h("p", null, `${count(refused.length, "letter")} cannot be redriven:`), h("ul", null, refused.slice(0, 20).map(([id, because]) => h("li", null, h("code", null, id), ` ${because}`)))));
    await load().catch(complain);
    text.focus();
  }

  async function look(letter) {
    const found = await get(`/v1/dead-letters/${letter.letter_id}`).catch(complain);
    if (!found) return;
    const source = `${found.source.topic}/${found.source.partition}@${found.source.offset}, event ${found.source.index} of the record`;
    const facts = [["Reason", `${found.reason}: ${found.message}`], ["Failed", `${new Date(found.failed_at).toLocaleString()}, tried ${found.attempts === 1 ? "once" : `${found.attempts} times`}`], ["Tenant", found.tenant ?? "–"], ["Source", source],
      ["Review item", found.item_id], ["Key", found.key ?? "–"], ...found.headers.map(([name, value]) => [`Header ${name}`, value]),
      ...found.history.map((each) => ["Redriven before", `${new Date(each.redriven_at).toLocaleString()} by ${each.actor}, after ${each.reason}`])];
    if (found.action) facts.push([found.state[0].toUpperCase() + found.state.slice(1), `${new Date(found.action.at).toLocaleString()} by ${found.action.actor}${found.action.reason ? `: ${found.action.reason}` : ""}`]);
    const acts = h("div.picker", null,
      found.state !== "redriven" && button("Redrive", { kind: "primary", onclick: () => { dialog.close(); act("redrive", [found.letter_id]); } }),
      found.state === "open" && button("Drop …", { kind: "danger", onclick: () => { dialog.close(); act("drop", [found.letter_id]); } }));
    const size = `${found.payload_size.toLocaleString("en")} bytes${found.is_cut ? ", of which the letter holds the beginning" : ""}`;
    const dialog = open(found.event_id, h("div.body.column.letter", null, acts,
      h("dl.letter-facts", null, facts.map(([name, value]) => [h("dt", null, name), h("dd", { dir: "auto" }, value)])),
      h("h3", null, `Record, ${size}`), h("pre.letter-record", { tabindex: "0", role: "region", "aria-label": "Record" }, found.text === null ? "(no value)" : pretty(found.text), found.text_is_cut ? "\n…" : "")));
  }

  const form = h("form.letters-filter", { role: "search", onsubmit: (event) => { event.preventDefault(); search(); } }, text, reason, tenant, state, age, h("button.button", null, "Search"));
  const search = () => { chosen.clear(); load().catch(complain); };
  for (const field of [reason, tenant, state, age]) field.addEventListener("change", search);
  replace(main, h("div.page", null, h("header", null, h("div", null, h("h1", null, "Dead letters"), h("p", null, "Events that could not be judged. Redrive submits them again, each once. Drop marks them as not to be submitted, with a reason."))),
    form, h("div.letters-tools", null, summary, every, stop, drop, redrive), outcome, table, h("div", null, more)));
  table.hidden = more.hidden = true;
  mark();
  await load();
  text.focus();
  return () => { left = true; };
}

function select(label, choices) {
  return h("select", { "aria-label": label }, choices.map(([value, words]) => h("option", { value }, words)));
}

/** Updates the options with the results; the selected option stays, even if it has no results. */
function options(field, none, names) {
  const value = field.value;
  const every = [...new Set([...names, ...(value ? [value] : [])])].sort();
  replace(field, h("option", { value: "" }, none), every.map((name) => h("option", { value: name }, name)));
  field.value = value;
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
