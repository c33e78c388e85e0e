/** Numbers, times and grades in words. */

export const GRADES = ["bad", "poor", "fair", "good", "perfect"];

export function grade(quality) {
  return GRADES[Math.min(4, Math.max(0, Math.round(quality) - 1))];
}

/**
 * The grade that the model finds most likely, and its share where the model gives one. Without shares it is the grade
 * nearest to the expected quality.
 * @param {{ quality: number, anchors?: number[] | null }} scores
 */
export function likeliest({ quality, anchors }) {
  if (!anchors) return { word: grade(quality), share: null };
  const share = Math.max(...anchors);
  return { word: GRADES[anchors.indexOf(share)], share };
}

/** Shortens a text to a number of characters, at a word boundary if possible. */
export function shortened(text, most) {
  if (text.length <= most) return text;
  const cut = text.slice(0, most - 1);
  const space = cut.lastIndexOf(" ");
  return `${(space > most / 2 ? cut.slice(0, space) : cut).trimEnd()}…`;
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

/** `in 7 min`, or `7 min late`. */
export function until(time) {
  const seconds = (Date.parse(time) - Date.now()) / 1000;
  return seconds < 0 ? `${duration(-seconds)} late` : `in ${duration(seconds)}`;
}

export function percent(share, digits = 0) {
  return `${(100 * share).toFixed(digits)} %`;
}

export function short(digest) {
  return digest?.startsWith("sha256:") ? digest.slice(7, 19) : digest ?? "";
}
