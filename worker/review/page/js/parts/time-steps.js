/** Hours put together into steps that can be seen as bars: at most some 60 on a chart. */

const HOUR = 3_600_000;

/** How many hours one bar stands for, when `hours` of them are shown. */
export function stepOf(/** @type {number} */ hours) {
  return hours <= 48 ? 1 : hours <= 336 ? 6 : 24;
}

/** `each hour`, `each 6 hours`, `each day`. */
export function stepWords(/** @type {number} */ step) {
  return step === 1 ? "each hour" : step === 24 ? "each day" : `each ${step} hours`;
}

/**
 * Hours, each with its begin as `hour`, summed up in steps that begin at midnight of this time zone. What is unknown
 * (null) for one hour is unknown for its step.
 * @template {{ hour: string }} T
 * @param {T[]} hours
 * @param {number} step
 * @returns {T[]}
 */
export function inSteps(hours, step) {
  if (step === 1) return hours;
  /** @type {Map<number, any>} */
  const steps = new Map();
  for (const hour of hours) {
    const begin = beginOf(new Date(hour.hour), step);
    const sum = steps.get(begin.getTime());
    if (!sum) steps.set(begin.getTime(), { ...hour, hour: begin.toISOString() });
    else for (const [name, value] of Object.entries(hour)) if (name !== "hour") sum[name] = sum[name] === null || value === null ? null : sum[name] + value;
  }
  return [...steps.values()];
}

function beginOf(/** @type {Date} */ time, /** @type {number} */ step) {
  const begin = new Date(time.getFullYear(), time.getMonth(), time.getDate(), Math.floor(time.getHours() / step) * step);
  // Where the clock was set back the same hour comes twice.
  return begin.getTime() > time.getTime() ? new Date(begin.getTime() - HOUR) : begin;
}
