/** Numbers for leads: volume, queues, pace, flips, agreement, audit. */

import { get } from "../parts/api.js";
import { timeChart } from "../parts/charts.js";
import { h, replace } from "../parts/dom.js";
import { onQuietDesk } from "../parts/live.js";
import { complain } from "../parts/messages.js";
import { address, remember } from "../parts/address.js";
import { Newest } from "../parts/newest.js";
import { preference, prefer } from "../parts/preferences.js";
import { inSteps, stepOf, stepWords } from "../parts/time-steps.js";
import { ago, count, duration, percent } from "../parts/words.js";

const SPANS = [[8, "8 hours"], [24, "a day"], [168, "a week"], [720, "a month"]];

/** The address is `#/dashboard?hours=168`. */
export async function show(main, context, _parts, params) {
  const asked = Number(params.get("hours"));
  let hours = SPANS.some(([value]) => value === asked) ? asked : preference("hours", 24);
  const newest = new Newest();
  const body = h("div.column");
  const spans = h("div.picker", { role: "group", "aria-label": "Time shown" }, SPANS.map(([value, label]) => h("button.button", { type: "button", "data-hours": String(value), onclick: () => { hours = value; prefer("hours", value); remember(address("dashboard", { hours: String(value) })); draw().catch(complain); } }, label)));
  replace(main, h("div.page", null, h("header", null, h("div", null, h("h1", null, "Dashboard"), h("p", null, "Load of the gate and the desk, and agreement between reviewers and the policy.")), spans), body));
  const draw = async () => {
    for (const each of spans.children) each.setAttribute("aria-pressed", String(Number(each.dataset.hours) === hours));
    // The desk's own numbers are shown even if Kafka does not answer.
    const found = await newest.run((signal) => Promise.all([get(`/v1/statistics?hours=${hours}`, { signal }), context.bar.refresh(), get(`/v1/intake?hours=${hours}`, { signal }).catch(() => null)]));
    if (!found) return;
    const [statistics, queues, intake] = found.answer;
    replace(body, numbers(statistics, queues, intake), charts(statistics, intake), quality(statistics), reviewers(statistics.reviewers), waiting(queues));
  };
  await draw();
  const again = () => draw().catch(() => {});
  const forget = onQuietDesk(again, 4000);
  const timer = setInterval(again, 30_000);
  return () => { forget(); clearInterval(timer); newest.cancel(); };
}

const sum = (items, value) => items.reduce((total, item) => total + value(item), 0);

function numbers({ hours, fleiss_kappa: kappa, audit_misses: misses, resolved_after_seconds: after }, queues, intake) {
  const arrived = sum(hours, (hour) => hour.arrived);
  const decided = sum(hours, (hour) => hour.approved + hour.rejected);
  const [held, flips] = [sum(hours, (hour) => hour.held), sum(hours, (hour) => hour.flips)];
  const oldest = queues.map((queue) => queue.oldest_at).filter(Boolean).sort()[0];
  const tile = (title, value, small) => h("li", null, h("span", null, title), h("b", null, value), h("small", null, small));
  return h("ul.numbers", null,
    tile("Behind the stream", intake ? intake.behind.toLocaleString("en") : "–", !intake ? "Kafka does not answer" : intake.behind ? "events without a verdict yet" : "every event has its verdict"),
    tile("Waiting now", sum(queues, (queue) => queue.open).toLocaleString("en"), oldest ? `oldest ${ago(oldest)}` : "nothing waits"),
    tile("Sent to review", arrived.toLocaleString("en"), share(arrived, intake)),
    tile("Decisions", decided.toLocaleString("en"), after === null ? "nothing settled yet" : `half of the items settled within ${duration(after)}`),
    tile("Flips", held ? percent(flips / held) : "–", held ? `${flips.toLocaleString("en")} of ${held.toLocaleString("en")} that the policy sent to review` : "approved, though the policy sent them to review"),
    tile("Agreement", kappa === null ? "–" : kappa.toFixed(2), kappa === null ? "too few shared items" : "Fleiss’ kappa"),
    missesTile(misses, tile));
}

/** The tenant with the greatest share of bad images among those that passed; the others are in the panel below. */
function missesTile(misses, tile) {
  const worst = misses.filter((each) => each.share !== null).sort((a, b) => b.share - a.share)[0];
  if (!worst) return tile("Audit misses", "–", "no image audited yet");
  const found = `${worst.missed} of ${worst.audited} audits`;
  return tile("Audit misses", percent(worst.share, 1), misses.length > 1 ? `${worst.tenant}: ${found}` : found);
}

/** The share of events that was sent to review; unknown if the topic no longer holds some of them. */
function share(arrived, intake) {
  const known = intake?.hours.every((hour) => hour.events !== null);
  const events = known ? sum(intake.hours, (hour) => hour.events) : 0;
  return events ? `${percent(arrived / events)} of ${count(events, "event")}` : "and sampled for the audit";
}

function charts({ hours: all }, intake) {
  const step = stepOf(all.length);
  const each = stepWords(step);
  const hours = inSteps(all, step);
  const came = intake && inSteps(intake.hours, step);
  const times = hours.map((hour) => Date.parse(hour.hour) / 1000);
  const values = (pick) => hours.map(pick);
  const share = values((hour) => (hour.held ? (100 * hour.flips) / hour.held : null));
  const panel = (title, text, chart) => h("section.panel", null, h("div", null, h("h2", null, title), h("p.soft", null, text)), chart);
  return h("div.pair", null,
    panel("Intake", `Events that arrived, ${each}.`, intake
      ? timeChart(`Events that came ${each}`, came.map((hour) => Date.parse(hour.hour) / 1000), [{ label: "events", tone: "--accent", bars: true, values: came.map((hour) => hour.events) }], { step })
      : h("p.soft", null, "Kafka does not answer.")),
    panel("Sent to review", `Images that were sent to review, ${each}.`, timeChart(`Images that came to the desk ${each}`, times, [{ label: "came", tone: "--a2", bars: true, values: values((hour) => hour.arrived) }], { step })),
    panel("Decisions", `What reviewers decided ${each}, stacked.`, timeChart(`Decisions ${each}`, times, [{ label: "rejected", tone: "--a1", bars: true, values: values((hour) => hour.approved + hour.rejected), told: values((hour) => hour.rejected) }, { label: "approved", tone: "--a5", bars: true, values: values((hour) => hour.approved) }], { step })),
    panel("Flips", "Share of decisions that approved an image which the policy had sent to review.", timeChart("Share of flips", times, [{ label: "flips", tone: "--a3", bars: true, values: share }], { format: (value) => `${Math.round(value)} %`, sums: false, step })));
}

function lag(queues) {
  const most = Math.max(1, ...queues.map((queue) => queue.open));
  if (!queues.length) return h("p.soft", null, "No queue yet.");
  return h("div.flows", null, queues.map((queue) => h("div.flow", null, h("b", null, queue.name),
    h("div.bars", { "aria-hidden": "true" }, h("i.waits", { style: { width: `${(100 * queue.open) / most}%` } })),
    h("span.after", null, `${queue.open} `, h("span.soft", null, queue.oldest_at ? `since ${ago(queue.oldest_at).replace(" ago", "")}` : "in time"), queue.overdue > 0 && h("span.delta.more", null, ` ${queue.overdue} overdue`)))));
}

function quality({ agreement, fleiss_kappa: kappa, audit_misses: misses }) {
  return h("div.pair", null,
    h("section.panel", null, h("div", null, h("h2", null, "Audit"), h("p.soft", null, "A sample of passed images is reviewed, too. This share of all passed images should not have passed, under the model and policy now in force.")), misses.some((each) => each.audited) ? intervals(misses.filter((each) => each.audited)) : h("p.soft", null, "No audited image was settled yet.")),
    h("section.panel", null, h("div", null, h("h2", null, "Agreement"), h("p.soft", null, `Cohen’s kappa of each two; 1 is perfect, 0 is chance.${kappa === null ? "" : ` All together (Fleiss): ${kappa.toFixed(2)}.`}`)),
      agreement.length ? h("div.scroll", { tabindex: "0", role: "region", "aria-label": "Agreement of each two" }, matrix(agreement)) : h("p.soft", null, "No two reviewers judged enough of the same images yet.")));
}

/** One interval for each tenant, all on the same scale. */
function intervals(misses) {
  const most = Math.max(0.05, Math.max(...misses.map((each) => each.high)) * 1.1);
  const at = (value) => `${(100 * value) / most}%`;
  return h("div.column", null, misses.map(({ tenant, share, low, high, missed, audited, drawn }) => h("div", null,
    h("h3", null, tenant),
    h("div.interval", { role: "img", "aria-label": `${tenant}: ${percent(share, 1)}, between ${percent(low, 1)} and ${percent(high, 1)}` }, h("div.track"), h("div.range", { style: { left: at(low), width: at(high - low) } }), h("div.point", { style: { left: at(share) } })),
    h("p", null, h("b", null, percent(share, 1)), ` should not have passed; between ${percent(low, 1)} and ${percent(high, 1)} with 95 % confidence. ${missed} of ${count(audited, "audit")} rejected${drawn > audited ? `, ${drawn - audited} still waiting` : ""}.`))));
}

function matrix(agreement) {
  const names = [...new Set(agreement.flatMap((pair) => [pair.first, pair.second]))].sort();
  const kappa = (a, b) => agreement.find((pair) => (pair.first === a && pair.second === b) || (pair.first === b && pair.second === a))?.kappa;
  return h("table.matrix", null, h("thead", null, h("tr", null, h("th"), names.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", null, names.map((row) => h("tr", null, h("th", { scope: "row" }, row), names.map((column) => h("td", null, row === column ? "·" : kappa(row, column)?.toFixed(2) ?? "–"))))));
}

function reviewers(people) {
  const share = (value) => (value.total ? `${percent(value.share)} of ${value.total}` : "–");
  const heads = ["Reviewer", "Approved", "Rejected", "Skipped", "Escalated", "Undone", "Each", "Test items right", "With the majority"];
  return h("section.panel", null, h("h2", null, "Reviewers"),
    people.length === 0 ? h("p.soft", null, "No decisions in this time.") :
      h("div.scroll", { tabindex: "0", role: "region", "aria-label": "Table of reviewers" }, h("table", null, h("thead", null, h("tr", null, heads.map((title, index) => h("th", { scope: "col", class: index ? "number" : "" }, title)))),
        h("tbody", null, people.map((person) => h("tr", null, h("th", { scope: "row" }, h("a", { href: address("search", { reviewer: person.reviewer }) }, person.reviewer)),
          [person.approved, person.rejected, person.skipped, person.escalated, person.undone, person.seconds_per_item === null ? "–" : `${person.seconds_per_item.toFixed(1)} s`, share(person.gold), share(person.majority)].map((value) => h("td.number", null, String(value)))))))));
}

function waiting(queues) {
  const heads = ["Queue", "Waiting", "With reviewers", "Escalated", "On hold", "Overdue", "Oldest"];
  return h("section.panel.column", null, h("div", null, h("h2", null, "Queues"), h("p.soft", null, "Items that wait for reviewers now, and since when.")), lag(queues), queues.length > 0 &&
    h("div.scroll", { tabindex: "0", role: "region", "aria-label": "Table of queues" }, h("table", null, h("thead", null, h("tr", null, heads.map((title, index) => h("th", { scope: "col", class: index ? "number" : "" }, title)))),
      h("tbody", null, queues.map((queue) => h("tr", null, h("th", { scope: "row" }, h("a", { href: address("search", { queue: queue.name, status: "open" }) }, queue.name)), [queue.open, queue.leased, queue.escalated, queue.held, queue.overdue, queue.oldest_at ? ago(queue.oldest_at) : "–"].map((value) => h("td.number", null, String(value)))))))));
}
