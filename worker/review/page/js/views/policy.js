/** What the policy says, and what a changed one would have done with past verdicts, before anybody deploys it. */

import { get, post } from "../parts/api.js";
import { button, h, icon, replace } from "../parts/dom.js";
import { complain, toast } from "../parts/messages.js";
import { picture } from "../parts/pictures.js";
import { count, short } from "../parts/words.js";

const WAIT = 350;
const CONSTANT = /^(\s+)([a-z][a-z0-9_]*):\s*(-?\d+(?:\.\d+)?)(\s*(?:#\s*(.*))?)$/;

export async function show(main) {
  const policy = await get("/v1/policy");
  const editor = h("textarea.code", { spellcheck: "false", "aria-label": "Policy, YAML", wrap: "off" });
  const sliders = h("div.constants");
  const result = h("section.panel", { "aria-live": "polite" });
  const state = h("p.soft");
  editor.value = policy.text;
  let timer = 0;
  let turn = 0;

  const changed = () => {
    clearTimeout(timer);
    timer = setTimeout(run, WAIT);
    const same = editor.value === policy.text;
    replace(state, same ? `Version ${policy.version}, ${short(policy.digest)}${policy.shipped ? "; the one that ships with Sluice" : ""}` : h("b", null, "A changed copy: nothing is deployed by trying it."));
    reset.disabled = download.disabled = same;
  };
  const run = async () => {
    const mine = ++turn;
    result.setAttribute("aria-busy", "true");
    try {
      const replayed = await post("/v1/policy/replay", { text: editor.value });
      if (mine === turn) replace(result, shown(replayed, editor.value === policy.text));
    } catch (error) {
      if (mine !== turn) return;
      if (error.problem?.faults) replace(result, h("h2", null, "This policy cannot be used"), h("ul", { style: { display: "grid", gap: "6px" } }, error.problem.faults.map((fault) => h("li.notice.bad", null, fault.what))));
      else complain(error);
    } finally {
      if (mine === turn) result.removeAttribute("aria-busy");
    }
  };
  const reset = button("Back to the current one", { iconName: "undo", onclick: () => { editor.value = policy.text; drawSliders(); changed(); } });
  const download = button("Download", { kind: "primary", onclick: () => save(editor.value) });
  const drawSliders = () => replace(sliders, constants(editor, policy.text, changed));

  editor.addEventListener("input", () => { drawSliders(); changed(); });
  drawSliders();
  replace(main, h("div.page", null,
    h("header", null, h("div", null, h("h1", null, "Policy"), state), h("div.picker", null, reset, download)),
    h("div.policy", null,
      h("div", { style: { display: "grid", gap: "16px" } },
        h("section.panel", null, h("div", null, h("h2", null, "Thresholds"), h("p.soft", null, "Move one, and see what it would have done.")), sliders),
        h("section.panel", null, h("div", null, h("h2", null, "The whole policy"), h("p.soft", null, "Workers read the policy from its file when they start: download a changed copy and deploy it as you deploy everything else.")), editor)),
      result)));
  changed();
  return () => { clearTimeout(timer); turn += 1; };
}

/** A slider for each number below `constants:`. It changes the number in the text and leaves everything else as it is. */
function constants(editor, original, changed) {
  const lines = editor.value.split("\n");
  const begin = lines.findIndex((line) => /^constants:\s*(#.*)?$/.test(line));
  const before = new Map(original.split("\n").map((line) => CONSTANT.exec(line)).filter(Boolean).map((found) => [found[2], Number(found[3])]));
  const rows = [];
  for (let at = begin + 1; begin >= 0 && at < lines.length && /^(\s|#|$)/.test(lines[at]); at += 1) {
    const found = CONSTANT.exec(lines[at]);
    if (!found) continue;
    const [, indent, name, value, rest, comment] = found;
    const number = Number(value);
    const scale = number >= 1 && number <= 5 ? [1, 5, 0.05] : number >= 0 && number <= 1 ? [0, 1, 0.01] : [Math.min(0, 2 * number), Math.max(1, 2 * number), 1];
    const output = h("output", { class: before.get(name) !== number ? "changed" : "" }, value);
    const slider = h("input", { type: "range", min: String(scale[0]), max: String(scale[1]), step: String(scale[2]), "aria-label": name, title: comment ?? "" });
    slider.value = value;
    slider.addEventListener("input", () => {
      const text = Number(slider.value).toFixed(scale[2] < 1 ? 2 : 0).replace(/(\.\d)0$/, "$1");
      output.textContent = text;
      output.classList.toggle("changed", before.get(name) !== Number(text));
      const now = editor.value.split("\n");
      now[at] = `${indent}${name}: ${text}${rest}`;
      editor.value = now.join("\n");
      changed();
    });
    rows.push(h("label", null, h("span", null, h("b", null, name), comment && h("small.soft", { style: { display: "block" } }, comment)), slider, output));
  }
  return rows.length ? rows : h("p.soft", null, "This policy has no numbers under constants.");
}

function shown(replayed, same) {
  const names = [...new Set([...Object.keys(replayed.before), ...Object.keys(replayed.after)])].sort((a, b) => (replayed.before[b] ?? 0) - (replayed.before[a] ?? 0));
  const most = Math.max(1, ...Object.values(replayed.before), ...Object.values(replayed.after));
  const moved = replayed.flips.reduce((sum, flip) => sum + flip.count, 0);
  const headline = replayed.total === 0 ? "There are no past verdicts yet" : moved ? `${count(moved, "image")} of ${replayed.replayed.toLocaleString("en")} would have gone elsewhere` : same ? "The current policy, replayed over past verdicts" : "Nothing would have gone elsewhere";
  return [
    h("div", null, h("h2", null, headline), h("p.soft", null, `Over the newest ${count(replayed.total, "verdict")}; the upper bar is what was, the lower what would have been.`)),
    h("div.flows", null, names.map((name) => flow(name, replayed.before[name] ?? 0, replayed.after[name] ?? 0, most))),
    replayed.failed > 0 && h("p.soft", null, `${count(replayed.failed, "image")} could never be judged; no policy changes that.`),
    replayed.undecided.map((each) => h("p.notice", null, `${count(each.count, "verdict")} cannot be replayed: rule ${each.rule} reads ${each.reads.join(", ")}, which verdicts do not carry.`)),
    replayed.changed > 0 && h("p.soft", null, `${count(replayed.changed, "image")} would have kept the way, with another priority or other labels.`),
    replayed.flips.map((flip) => h("section.block", null,
      h("div.arrow", null, destination(flip.before), "→", destination(flip.after), h("b", null, count(flip.count, "image"))),
      h("div.examples", null, flip.examples.map(example)))),
  ];
}

function flow(name, before, after, most) {
  const change = after - before;
  return h("div.flow", null, destination(name),
    h("div.bars", { "aria-hidden": "true" }, h("i", { style: { width: `${(100 * before) / most}%` } }), h("i", { style: { width: `${(100 * after) / most}%` } })),
    h("span.after", null, `${before} → ${after} `, change !== 0 && h("span.delta", { class: change > 0 ? "more" : "less" }, `${change > 0 ? "+" : "−"}${Math.abs(change)}`)));
}

function destination(name) {
  return h("span.badge", { class: name.split(":")[0] }, name.replace(":", " · "));
}

function example(each) {
  const none = () => h("span.none", null, icon("image"));
  const figure = h("figure", null, none(), h("figcaption", null, h("b", null, each.quality.toFixed(2)), ` ${each.rule_before} → ${each.rule_after}`));
  if (each.image) figure.firstChild.replaceWith(picture(each.image.thumbnail, `example of quality ${each.quality.toFixed(2)}`, { onmissing: () => figure.querySelector("img")?.replaceWith(none()) }));
  return figure;
}

function save(text) {
  const link = h("a", { href: URL.createObjectURL(new Blob([text], { type: "application/yaml" })), download: "policy.yaml" });
  link.click();
  URL.revokeObjectURL(link.href);
  toast("Check it with: sluice policy check policy.yaml");
}
