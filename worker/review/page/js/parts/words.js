/** Numbers, times and grades in words. */

export const GRADES = ["bad", "poor", "fair", "good", "perfect"];

export function grade(quality) {
  return GRADES[Math.min(4, Math.max(0, Math.round(quality) - 1))];
}

export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

/** `42 s`, `7 min`, `3 h`, `2 d`. */
export function duration(seconds) {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 36 * 3600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

export function ago(time) {
  return `${duration((Date.now() - Date.parse(time)) / 1000)} ago`;
}

export function percent(share, digits = 0) {
  return `${(100 * share).toFixed(digits)} %`;
}

export function short(digest) {
  return digest?.startsWith("sha256:") ? digest.slice(7, 19) : digest ?? "";
}
