/** Webhooks, for leads: lists undelivered messages and sends them again. */

import { get, post } from "../parts/api.js";
import { ask } from "../parts/dialogs.js";
import { button, h, replace } from "../parts/dom.js";
import { complain, toast } from "../parts/messages.js";
import { Newest } from "../parts/newest.js";
import { ago, count } from "../parts/words.js";

/** Milliseconds between updates of the numbers. */
const AGAIN = 5000;
const SHOWN = 100;

export async function show(main) {
  const parts = h("div.column");
  const newest = new Newest();
  let left = false;
  /** The current content. It is redrawn only when it has changed, so that the focus is kept. */
  let shown = "";

  const draw = async () => {
    const found = await newest.run(async (signal) => {
      const webhooks = await get("/v1/webhooks", { signal });
      return Promise.all(webhooks.map(async (webhook) => ({
        ...webhook,
        messages: webhook.undelivered ? await get(`${path(webhook)}/undelivered?limit=${SHOWN}`, { signal }) : [],
      })));
    });
    if (!found || left || JSON.stringify(found.answer) === shown) return;
    shown = JSON.stringify(found.answer);
    replace(parts, found.answer.length ? found.answer.map((webhook) => panel(webhook, redeliver)) : h("p.soft", null, "The settings name no webhook (review.webhooks)."));
  };

  async function redeliver(webhook, ids) {
    const number = ids?.length ?? webhook.undelivered;
    const said = await ask(`Send ${count(number, "message")} to ${webhook.name} again?`, ["Each is sent once. The receiver can drop duplicates, because a message keeps its id. A message that fails is listed again."], { action: "Send again" });
    if (said === null) return;
    try {
      const { queued } = await post(`${path(webhook)}/redeliver`, ids ? { ids } : {});
      toast(`${count(queued, "message")} will be sent again`);
    } catch (error) {
      complain(error);
    }
    await draw().catch(complain);
  }

  replace(main, h("div.page", null, h("header", null, h("div", null, h("h1", null, "Webhooks"), h("p", null, "What Sluice sends to other systems, and what could not be delivered."))), parts));
  await draw();
  const timer = setInterval(() => { if (!document.hidden && !document.querySelector("dialog[open]")) draw().catch(() => {}); }, AGAIN);
  return () => {
    left = true;
    clearInterval(timer);
  };
}

function path(webhook) {
  return `/v1/webhooks/${encodeURIComponent(webhook.name)}`;
}

function panel(webhook, redeliver) {
  const behind = webhook.behind === null ? "no desk delivers to it now" : webhook.behind === 0 ? "up to date" : `${count(webhook.behind, "record")} behind`;
  const state = webhook.undelivered ? h("span.badge.reject", null, `${webhook.undelivered.toLocaleString("en")} not delivered`) : h("span.badge.pass", null, "all delivered");
  const more = webhook.undelivered > webhook.messages.length ? h("p.soft", null, `The newest ${SHOWN} are shown.`) : null;
  return h("section.panel.webhook", { "aria-label": webhook.name }, h("header", null,
    h("div", null, h("h2", null, webhook.name), h("p.soft", null, `${webhook.sends} to ${webhook.host}; ${behind}`)), state,
    webhook.undelivered > 0 && button("Send all again", { kind: "primary", onclick: () => redeliver(webhook, null) })),
    webhook.messages.length > 0 && h("div.scroll", { tabindex: "0", role: "region", "aria-label": `Not delivered to ${webhook.name}` }, h("table", null,
      h("thead", null, h("tr", null, ["Reason", "Tried", "Failed", "Holds", "Source"].map((title) => h("th", { scope: "col" }, title)), h("th", { scope: "col" }, h("span.unseen", null, "Send again")))),
      h("tbody", null, webhook.messages.map((message) => h("tr", null,
        h("td", { dir: "auto" }, message.reason), h("td", null, `${message.attempts}×`),
        h("td", null, h("time", { datetime: message.failed_at, title: new Date(message.failed_at).toLocaleString() }, ago(message.failed_at))),
        h("td", null, count(message.records, "record")), h("td", null, message.source),
        h("td", null, button("Send again", { "aria-label": `Send ${message.source} again`, onclick: () => redeliver(webhook, [message.id]) }))))))), more);
}
