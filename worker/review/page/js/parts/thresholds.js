/** Sliders for a policy's constants. */

import { h } from "./dom.js";

const CONSTANT = /^(\s+)([a-z][a-z0-9_]*):\s*(-?\d+(?:\.\d+)?)(\s*(?:#\s*(.*))?)$/;

/** A slider for each number below `constants:`. It changes the number in the text and leaves everything else as it is. */
export function thresholds(editor, original, changed) {
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
