/** All queues at a glance. */

import { empty, h, replace } from "../parts/dom.js";
import { address } from "../parts/address.js";
import { setKeys } from "../parts/keys.js";
import { onQuietDesk } from "../parts/live.js";
import { Newest } from "../parts/newest.js";
import { roleIncludes } from "../parts/roles.js";
import { ago, count, until } from "../parts/words.js";

export async function show(main, context) {
  const cards = h("div.cards");
  replace(main, h("div.page", null, h("header", null, h("div", null, h("h1", null, "Queues"), h("p", null, "Images that wait for review, and who is working on them."))), cards));
  const newest = new Newest();
  const draw = async () => {
    const found = await newest.run(() => context.bar.refresh());
    if (!found) return;
    const queues = found.answer;
    replace(cards, queues.length ? queues.map((queue) => card(queue, context)) : empty("check", "No queue yet", "Queues appear when the policy sends the first image to one."));
  };
  await draw();
  if (roleIncludes(context.me.role, "reviewer")) {
    const review = (_, key) => { cards.querySelectorAll("a.primary")[Number(key) - 1]?.click(); };
    setKeys(main, [{ title: "Queues", keys: [{ key: "1", label: "Review the first, second, … queue", shown: "1 … 9", also: [..."23456789"], run: review }] }]);
  }
  const again = () => draw().catch(() => {});
  const forget = onQuietDesk(again);
  const timer = setInterval(again, 15_000);
  return () => { forget(); clearInterval(timer); newest.cancel(); };
}

function card(queue, context) {
  const isLate = queue.decide_by !== null && Date.parse(queue.decide_by) < Date.now();
  const state = isLate ? h("span.badge.reject", null, "late") : queue.overdue > 0 ? h("span.badge.reject", null, `${queue.overdue} overdue`) : h("span.badge.pass", null, "in time");
  const fact = (title, value) => h("div", null, h("dt", null, title), h("dd", null, value));
  return h("section.panel.queue", { "aria-label": queue.name },
    h("div.head", null, h("h2", null, queue.name), state),
    h("div.count", null, queue.open.toLocaleString("en"), " ", h("small", null, queue.open === 1 ? "image waits" : "images wait")),
    h("dl", null, fact("With reviewers", String(queue.leased)), fact("Escalated", String(queue.escalated)), fact("On hold", String(queue.held)),
      fact("Oldest", queue.oldest_at ? ago(queue.oldest_at) : "–"), fact("Assigned", String(queue.assigned)), fact("Votes", queue.votes > 1 ? `${queue.agree} of ${queue.votes}` : "one"),
      queue.decide_by && fact("Decide the oldest", until(queue.decide_by))),
    roleIncludes(context.me.role, "reviewer") && h("div.buttons", null,
      h("a.button.primary", { href: address("review", queue.name) }, "Review"), h("a.button", { href: address("grid", queue.name) }, "Grid"),
      queue.escalated > 0 && roleIncludes(context.me.role, "lead") && h("a.button", { href: address("review", queue.name, "escalated"), title: count(queue.escalated, "escalated image") }, "Escalated")));
}
