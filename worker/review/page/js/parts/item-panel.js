/** The details of an item. */

import { isAnimation, worstFrame } from "./animation.js";
import { address } from "./address.js";
import { h, icon } from "./dom.js";
import { picture, small } from "./pictures.js";
import { ago, count, duration, GRADES, likeliest, percent, short, shortened } from "./words.js";

/** @type {Record<string, string>} */
const OUTCOMES = { approve: "approved", reject: "rejected", escalate: "escalated", hold: "put on hold", reopen: "reopened", skip: "skipped", assign: "assigned", split: "separated from its duplicates", gold: "made a test item" };

/** Short labels of actions. */
export const outcomeWords = (/** @type {{ outcome: string, undoes: string | null }} */ { outcome, undoes }) => (undoes ? "taken back" : OUTCOMES[outcome] ?? outcome);

/** The panel's sections for an item; `extra` come before the facts. */
export function itemPanel(item, ...extra) {
  return [
    escalation(item),
    item.scores ? scores(item.scores) : unjudged(item.failure),
    why(item),
    item.prompt && h("section.block", null, h("h3", null, "Prompt"), h("p.prompt", { lang: "", dir: "auto", tabindex: "0" }, item.prompt)),
    ...extra,
    item.history.length > 0 && history(item.history),
    item.scores && streams(item.scores),
    item.provenance?.found && provenance(item.provenance),
    facts(item),
  ];
}

/** Why the item was escalated, at the top because a lead must answer it. */
function escalation({ status, history: acts }) {
  if (status !== "escalated") return null;
  const act = acts.findLast(({ outcome }) => outcome === "escalate");
  if (!act) return h("section.notice.asks", null, h("b", null, "The votes tie: a lead decides"));
  return h("section.notice.asks", null, h("b", null, `Escalated by ${act.by}`), " ", h("time", { datetime: act.at }, ago(act.at)),
    act.labels.length > 0 && h("p", null, act.labels.join(", ")), act.note ? h("p", { dir: "auto" }, act.note) : act.labels.length === 0 && h("p", null, "without a note"));
}

/** The expected quality, which is a mean, and the grade that is most likely, which may be another one. */
function scores(item) {
  const { quality, anchors } = item;
  const { word, share } = likeliest(item);
  return h("section", { "aria-label": "Quality" },
    h("div.verdict", null, h("b", null, quality.toFixed(2)), h("div", null, h("span.of", null, "expected quality, of 5"), h("span.word", null, share === null ? word : `most likely ${word}, ${percent(share)}`))),
    anchors && anchorBar(anchors),
    h("div.scale", { role: "img", "aria-label": `expected quality ${quality.toFixed(2)} on a scale from 1 to 5` }, h("u", { style: { left: `${25 * (quality - 1)}%` } })));
}

/** The five probabilities behind the quality, as columns. */
function anchorBar(anchors) {
  const most = Math.max(...anchors);
  return h("ul.anchors", { "aria-label": "How sure the model is of each grade" }, anchors.map((share, index) =>
    h("li", { class: share === most ? "most" : "" }, h("span.column", { "aria-hidden": "true" }, h("i", { style: { height: percent(share / Math.max(most, 0.5), 1).replace(" ", "") } })), h("span", null, GRADES[index]), h("span", null, percent(share)))));
}

function unjudged(failure) {
  return h("section.notice.bad", null, h("b", null, "Not judged: "), (failure?.reason ?? "").replaceAll("_", " "), h("p", null, failure?.message));
}

function why(item) {
  const sentence = item.failure ? "It could not be judged, so a person must look." : `The rule “${item.rule}” sent it to the queue ${item.queue}.`;
  return h("section.block", null, h("h3", null, "Why this image is here"), h("p", null, sentence),
    h("div.why", null, h("span.badge.review", null, item.rule), item.labels.filter((label) => label !== item.rule).map((label) => h("span.badge", null, label)), item.status === "escalated" && h("span.badge.escalate", null, "escalated")));
}

function streams({ coarse_share: share, correspondence }) {
  if (share === null && correspondence === null) return null;
  return h("section.block", null, h("h3", null, "How the model scored it"),
    share !== null && h("div", null, h("div.meter", { role: "img", "aria-label": `composition ${percent(share)}, texture ${percent(1 - share)}` }, h("i", { style: { width: `${100 * share}%` } }), h("i", { style: { width: `${100 * (1 - share)}%` } })),
      h("div.split", null, h("span", null, `composition ${percent(share)}`), h("span", null, `texture ${percent(1 - share)}`))),
    correspondence !== null && h("p", null, `Fits its prompt: ${correspondence.toFixed(2)} of 5`));
}

/** @type {Record<string, string>} */
const MANIFESTS = { unverified: "present, not verified", invalid: "does not verify", valid: "verifies, unknown signer", trusted: "verifies, trusted signer" };
/** @type {Record<string, string>} */
const TOOLS = { a1111: "Automatic1111 or compatible", comfyui: "ComfyUI", invokeai: "InvokeAI", midjourney: "Midjourney" };

/** Provenance from the file. Anyone can write it, so it is shown as a claim. */
function provenance(file) {
  const rows = [
    ["C2PA manifest", MANIFESTS[file.c2pa]],
    ["Made with", file.c2pa_generator],
    ["Signed by", file.c2pa_signer],
    ["Source type (C2PA)", file.c2pa_source_type],
    ["Source type (IPTC)", file.source_type],
    ["Generator text", TOOLS[file.generator]],
    ["Model", file.model],
    ["Sampler", file.sampler],
    ["Steps", file.steps],
    ["Seed", file.seed],
    ["Software", file.software],
  ];
  return h("section.block", { "aria-label": "Provenance" }, h("h3", null, "What the file says"),
    h("dl.facts", null, rows.filter(([, value]) => value !== undefined && value !== null).map(([name, value]) => [h("dt", null, name), h("dd", { dir: "auto" }, String(value))])),
    file.c2pa !== "trusted" && h("p.soft", null, "Anyone can write this into a file."));
}

function facts(item) {
  const rows = [
    isAnimation(item) && ["Animation", worstFrame(item)],
    ["Generator", item.generator],
    ["Tenant", item.tenant],
    ["Priority", String(item.priority)],
    ["Waiting", duration((Date.now() - Date.parse(item.created_at)) / 1000)],
    item.votes_needed > 1 && ["Votes", `${item.votes_cast} cast, ${item.votes_needed} equal ones settle it`],
    item.assignee && ["Assigned to", item.assignee],
    ["Item", h("a", { href: address("item", item.item_id), title: "This item's own address, to send to others" }, shortened(item.event_id, 24))],
    ["Image", item.place?.split("/").pop()],
    ["Model", short(item.model)],
    ["Policy", short(item.policy)],
  ];
  return h("section.block", null, h("h3", null, "Facts"), h("dl.facts", null, rows.filter((row) => row && row[1]).map(([name, value]) => [h("dt", null, name), h("dd", { title: name === "Image" ? item.place : null }, value)])));
}

function history(acts) {
  return h("section.block", null, h("h3", null, "History"), h("ul.history", null, [...acts].reverse().map((act) =>
    h("li", null, h("span.badge", { class: act.outcome }, outcomeWords(act)), h("span", null, act.by), h("time", { datetime: act.at }, ago(act.at)), (act.note || act.labels.length > 0) && h("p", { dir: "auto" }, [act.labels.join(", "), act.note].filter(Boolean).join(" · "))))));
}

/** The images that one decision covers; `onlook(index)` shows one of them. */
export function duplicates(lease, shown, onlook, onsplit) {
  if (lease.items.length < 2) return null;
  const others = lease.items.length - 1;
  const twin = (item, index) => {
    const none = () => h("span.none", null, icon("broken"));
    const look = h("button", { type: "button", "aria-pressed": String(index === shown), "aria-label": `Look at image ${index + 1} of ${lease.items.length}`, onclick: () => onlook(index) });
    look.append(item.image ? picture(small(item.image), "", { onmissing: () => look.replaceChildren(none()) }) : none());
    return look;
  };
  return h("section.block", null, h("h3", null, `Near duplicates: your decision covers ${count(lease.items.length, "image")}`),
    h("div.twins", null, lease.items.map(twin)),
    h("button.button", { type: "button", onclick: onsplit }, icon("grid"), `Judge ${others === 1 ? "them" : "each"} alone`, h("kbd", { "aria-hidden": "true" }, "P")));
}
