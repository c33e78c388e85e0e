/** Charts by uPlot, in the page's colours; drawn again when theme or width change. */

import uPlot from "../../vendor/uplot/uPlot.esm.js";
import { h, replace } from "./dom.js";

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const FONT = "12px Inter, system-ui, sans-serif";
const HEIGHT = 230;
/** Steps between ticks: images are counted in whole ones. */
const WHOLE = [1, 2, 5].flatMap((step) => [1, 10, 100, 1000, 10_000, 100_000].map((power) => step * power)).sort((a, b) => a - b);

/**
 * A chart in time. `series` are `{ label, tone, values, told, bars, fill }` with `tone` the name of a colour property and
 * `told` the numbers to say where those drawn are stacked on others; `times` in seconds, each the begin of `step` hours.
 * `sums`: adding values up makes sense. Returns the element; it redraws itself until it leaves the page.
 */
export function timeChart(label, times, series, { format = (value) => value.toLocaleString("en"), sums = true, step = 1 } = {}) {
  if (!series.some((each) => each.values.some((value) => (sums ? value : value !== null)))) return h("p.chart-none", null, "No data in this time.");
  const box = h("div.chart", { role: "img", "aria-label": summary(label, series, format, sums) });
  const legend = h("div.legend", { "aria-hidden": "true" });
  const tell = (at) => replace(legend, series.map((each) => h("span", null, h("i", { style: { "--tone": `var(${each.tone})` } }), each.label, at !== null && [" ", h("b", null, told(each, at, format))])), at !== null && h("time", null, span(times[at], step)));
  tell(null);
  /** @type {any} */
  let chart = null;
  const draw = () => {
    chart?.destroy();
    chart = new uPlot(options(box.clientWidth || 480, times, series, format, tell, step), [times, ...series.map((each) => each.values)], box);
  };
  const watcher = new ResizeObserver(() => {
    if (!box.isConnected) return;
    if (!chart) draw();
    else chart.setSize({ width: box.clientWidth, height: HEIGHT });
  });
  watcher.observe(box);
  const themed = () => {
    if (box.isConnected) return chart && draw();
    document.removeEventListener("theme", themed);
    watcher.disconnect();
    return chart?.destroy();
  };
  document.addEventListener("theme", themed);
  return h("div", null, box, legend);
}

/** The value of a series at a place; of stacked series, its own value alone. */
function told({ values, told: own = values }, at, format) {
  return own[at] === null ? "–" : format(own[at]);
}

function options(width, times, series, format, tell, step) {
  const bars = series.some((each) => each.bars);
  const half = step * 1800;
  const axis = { stroke: color("--soft"), font: FONT, grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
  return {
    width, height: HEIGHT, cursor: { y: false, points: { size: 7 } }, legend: { show: false }, padding: [12, 20, 0, 0],
    hooks: { setCursor: [(chart) => tell(chart.cursor.idx ?? null)] },
    scales: { x: { time: true, range: (_, low, high) => (bars ? [low - half, high + half] : [low, high]) }, y: { range: (_, low, high) => [Math.min(0, low), Math.max(2, high * 1.1)] } },
    axes: [{ ...axis, grid: { show: false }, space: 64, size: 30, values: (_, ticks) => ticks.map(moment) }, { ...axis, size: 48, incrs: WHOLE, values: (_, ticks) => ticks.map(format) }],
    series: [{}, ...series.map((each) => ({
      label: each.label, stroke: color(each.tone), width: each.bars ? 0 : 2.5, points: { show: false },
      fill: each.bars ? color(each.tone) : each.fill ? `${color(each.tone)}26` : undefined,
      paths: each.bars ? uPlot.paths.bars({ size: [0.62, 40], radius: 0.15 }) : undefined,
      value: (_, value) => (value === null ? "–" : format(value)),
    }))],
  };
}

const DAY = new Intl.DateTimeFormat("en", { day: "numeric", month: "short" });
const CLOCK = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

/** A tick of the time axis: the day where one begins, else the hour. */
function moment(seconds) {
  const time = new Date(seconds * 1000);
  if (time.getHours() === 0) return DAY.format(time);
  return `${String(time.getHours()).padStart(2, "0")}:${String(time.getMinutes()).padStart(2, "0")}`;
}

/** The step that begins then. */
function span(seconds, step) {
  if (step === 24) return DAY.format(new Date(seconds * 1000));
  return `${DAY.format(new Date(seconds * 1000))}, ${CLOCK.format(new Date(seconds * 1000))} – ${CLOCK.format(new Date((seconds + step * 3600) * 1000))}`;
}

function summary(label, series, format, sums) {
  const all = (own) => format(own.reduce((sum, value) => sum + (value ?? 0), 0));
  return `${label}: ${series.map(({ label: name, values, told: own = values }) => `${name} ${format(own.at(-1) ?? 0)} last${sums ? `, ${all(own)} in all` : ""}`).join("; ")}`;
}
