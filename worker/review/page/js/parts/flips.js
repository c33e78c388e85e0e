/** Shows changed routes: a table of routes before and after, with example images. */

import { h, icon } from "./dom.js";
import { picture, small } from "./pictures.js";
import { count } from "./words.js";

/** Rows and examples of `{ before, after, flips }`, as a replay and a shadow have them. */
export function flips({ before, after, flips: kinds }) {
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])].sort((a, b) => (before[b] ?? 0) - (before[a] ?? 0));
  const most = Math.max(1, ...Object.values(before), ...Object.values(after));
  return [
    h("div.flows", null, names.map((name) => flow(name, before[name] ?? 0, after[name] ?? 0, most))),
    kinds.map((flip) => h("section.block", null,
      h("div.arrow", null, destination(flip.before), "→", destination(flip.after), h("b", null, count(flip.count, "image"))),
      h("div.examples", null, flip.examples.map(example)))),
  ];
}

export function moved({ flips: kinds }) {
  return kinds.reduce((sum, flip) => sum + flip.count, 0);
}

function flow(name, before, after, most) {
  const change = after - before;
  return h("div.flow", null, destination(name),
    h("div.bars", { "aria-hidden": "true" }, h("i", { style: { width: `${(100 * before) / most}%` } }), h("i", { style: { width: `${(100 * after) / most}%` } })),
    h("span.after", null, `${before} → ${after} `, change !== 0 && h("span.delta", { class: change > 0 ? "more" : "less" }, `${change > 0 ? "+" : "−"}${Math.abs(change)}`)));
}

function destination(name) {
  const shown = name.replace(":", " · ");
  return h("span.badge", { class: name.split(":")[0], title: shown }, shown);
}

function example(each) {
  const none = () => h("span.none", null, icon("image"));
  const figure = h("figure", null, none(), h("figcaption", null, h("b", null, each.quality.toFixed(2)), ` ${each.rule_before} → ${each.rule_after}`));
  if (each.image) figure.firstChild.replaceWith(picture(small(each.image), `example of quality ${each.quality.toFixed(2)}`, { onmissing: () => figure.querySelector("img")?.replaceWith(none()) }));
  return figure;
}
