/** Charts by uPlot, in the page's colours; drawn again when theme or width change. */

import uPlot from "../../vendor/uplot/uPlot.esm.js";
import { h } from "./dom.js";

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const FONT = "12px Inter, system-ui, sans-serif";
const HEIGHT = 230;
/** Steps between ticks: images are counted in whole ones. */
const WHOLE = [1, 2, 5].flatMap((step) => [1, 10, 100, 1000, 10_000, 100_000].map((power) => step * power)).sort((a, b) => a - b);

/**
 * A chart in time. `series` are `{ label, tone, values, bars, fill }` with `tone` the name of a colour property; `times`
 * in seconds. Returns the element; it looks after itself until it leaves the page.
 */
export function timeChart(label, times, series, { format = (value) => value.toLocaleString("en") } = {}) {
  const box = h("div.chart", { role: "img", "aria-label": summary(label, series, format) });
  let chart = null;
  const draw = () => {
    chart?.destroy();
    chart = new uPlot(options(box.clientWidth || 480, times, series, format), [times, ...series.map((each) => each.values)], box);
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
  return h("div", null, box, h("div.legend", { "aria-hidden": "true" }, series.map((each) => h("span", null, h("i", { style: { "--tone": `var(${each.tone})` } }), each.label))));
}

function options(width, times, series, format) {
  const bars = series.some((each) => each.bars);
  const half = times.length > 1 ? (times[1] - times[0]) / 2 : 1800;
  const axis = { stroke: color("--soft"), font: FONT, grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
  return {
    width, height: HEIGHT, cursor: { y: false, points: { size: 7 } }, legend: { show: false }, padding: [12, 8, 0, 0],
    scales: { x: { time: true, range: (_, low, high) => (bars ? [low - half, high + half] : [low, high]) }, y: { range: (_, low, high) => [Math.min(0, low), Math.max(2, high * 1.1)] } },
    axes: [{ ...axis, grid: { show: false }, space: 64, values: (_, ticks) => ticks.map(moment) }, { ...axis, size: 48, incrs: WHOLE, values: (_, ticks) => ticks.map(format) }],
    series: [{}, ...series.map((each) => ({
      label: each.label, stroke: color(each.tone), width: each.bars ? 0 : 2.5, points: { show: false },
      fill: each.bars ? color(each.tone) : each.fill ? `${color(each.tone)}26` : undefined,
      paths: each.bars ? uPlot.paths.bars({ size: [0.62, 40], radius: 0.15 }) : undefined,
      value: (_, value) => (value === null ? "–" : format(value)),
    }))],
  };
}

const DAY = new Intl.DateTimeFormat("en", { day: "numeric", month: "short" });

/** A tick of the time axis: the day where one begins, else the hour. */
function moment(seconds) {
  const time = new Date(seconds * 1000);
  if (time.getHours() === 0) return DAY.format(time);
  return `${String(time.getHours()).padStart(2, "0")}:${String(time.getMinutes()).padStart(2, "0")}`;
}

function summary(label, series, format) {
  const last = series.map((each) => `${each.label} ${format(each.values.at(-1) ?? 0)} last, ${format(each.values.reduce((sum, value) => sum + (value ?? 0), 0))} in all`);
  return `${label}: ${last.join("; ")}`;
}
