/** The small parts: keys on every layout, the undo stack, the newest request, time steps, grades, addresses. */

import assert from "node:assert/strict";
import { test } from "node:test";
import "./browser.js";
import { address, parseAddress } from "../../worker/review/page/js/parts/address.js";
import { candidates } from "../../worker/review/page/js/parts/keys.js";
import { Newest } from "../../worker/review/page/js/parts/newest.js";
import { inSteps, stepOf } from "../../worker/review/page/js/parts/time-steps.js";
import { UndoStack } from "../../worker/review/page/js/parts/undo-stack.js";
import { likeliest, shortened, until } from "../../worker/review/page/js/parts/words.js";
import { emptyQueue } from "../../worker/review/page/js/views/review/empty-queue.js";

const pressed = (key, code, shiftKey = false) => candidates({ key, code, shiftKey });

test("a Latin letter, digit or sign is what it types, wherever its key is", () => {
  assert.deepEqual(pressed("a", "KeyQ"), ["a"]); // AZERTY
  assert.deepEqual(pressed("R", "KeyR"), ["r"]); // Caps Lock
  assert.deepEqual(pressed("R", "KeyR", true), ["Shift+r"]);
  assert.deepEqual(pressed("?", "Minus", true), ["?"]); // German
  assert.deepEqual(pressed("1", "Digit1", true), ["1"]); // AZERTY
  assert.deepEqual(pressed("ArrowLeft", "ArrowLeft", true), ["Shift+ArrowLeft"]);
  assert.deepEqual(pressed(" ", "Space"), [" "]);
});

test("on other layouts and with input methods a key is the one at its place", () => {
  for (const key of ["к", "ق", "ρ", "ר", "ร", "Process", "Unidentified", "Dead", "لا"]) assert.deepEqual(pressed(key, "KeyR"), ["r"], key);
  assert.deepEqual(pressed("К", "KeyR", true), ["Shift+r"]);
  assert.deepEqual(pressed("é", "Digit2"), ["2"]);
  assert.deepEqual(pressed("&", "Digit1"), ["&", "1"]);
  assert.deepEqual(pressed(".", "Slash"), [".", "/"]); // Russian
  assert.deepEqual(pressed(",", "Slash", true), [",", "?"]);
  assert.deepEqual(pressed("!", "Digit1", true), ["!", "Shift+1"]);
  assert.deepEqual(pressed("ö", "Semicolon"), []);
});

test("the undo stack gives the newest first, and nothing that is too old", () => {
  let now = 0;
  const stack = new UndoStack(1000, () => now);
  const done = (title) => ({ title, address: "", acts: [{ decision: { decision_id: title }, lease: {} }] });
  stack.push(done("first"));
  now = 600;
  stack.push(done("second"));
  stack.push(done("third"));
  stack.forget("third");
  assert.equal(stack.isNewest("second"), true);
  assert.equal(stack.pop()?.title, "second");
  now = 1001;
  assert.equal(stack.pop(), null);
});

test("an older answer, or its error, is dropped when a newer request was begun", async () => {
  const newest = new Newest();
  const late = newest.run((signal) => new Promise((_, fail) => { signal.addEventListener("abort", () => fail(new Error("cancelled"))); }));
  assert.deepEqual(await newest.run(async () => "new"), { answer: "new" });
  assert.equal(await late, null);
  const slow = newest.run(() => new Promise((done) => { setTimeout(() => done("old"), 20); }));
  newest.cancel();
  assert.equal(await slow, null);
  await assert.rejects(newest.run(async () => { throw new Error("no"); }), { message: "no" });
});

test("a month is some 30 bars and a week 28, whose sums are those of the hours", () => {
  const hours = (count) => Array.from({ length: count }, (_, at) => ({ hour: new Date(Date.UTC(2026, 10, 1, at)).toISOString(), arrived: 1, events: at === 5 ? null : 2 }));
  for (const [count, most] of [[8, 8], [24, 24], [168, 29], [720, 31]]) {
    const steps = inSteps(hours(count), stepOf(count));
    assert.ok(steps.length <= most && steps.length >= most - 1, `${count} hours: ${steps.length}`);
    assert.equal(steps.reduce((sum, step) => sum + step.arrived, 0), count);
  }
  const days = inSteps(hours(720), 24);
  assert.equal(days.filter(({ events }) => events === null).length, 1);
  assert.ok(days.every(({ hour }) => new Date(hour).getHours() === 0));
});

test("the likeliest grade is that of the largest share, not that of the mean", () => {
  assert.deepEqual(likeliest({ quality: 1.52, anchors: [0.7, 0.15, 0.09, 0.05, 0.01] }), { word: "bad", share: 0.7 });
  assert.deepEqual(likeliest({ quality: 1.52 }), { word: "poor", share: null });
});

test("an address holds what a view shows, whatever characters it has", () => {
  assert.equal(address("review", "a/b c", "escalated"), "#/review/a%2Fb%20c/escalated");
  assert.equal(address("search", { text: "fox & hare", queue: "" }), "#/search?text=fox+%26+hare");
  const { view, parts, params } = parseAddress("#/search/a%2Fb?text=fox+%26+hare&q=1?2");
  assert.deepEqual([view, parts, params.get("text"), params.get("q")], ["search", ["a/b"], "fox & hare", "1?2"]);
  assert.deepEqual(parseAddress("#/grid/%E0%A4%A").parts, []);
});

test("a text is cut at a word", () => {
  assert.equal(shortened("short", 40), "short");
  assert.equal(shortened("a fox in the snow, number 12", 20), "a fox in the snow,…");
  assert.equal(shortened("x".repeat(50), 10), `${"x".repeat(9)}…`);
});

test("a queue without an image for me is called clear only when nothing waits in it", () => {
  const queue = { name: "q", open: 0, leased: 0, escalated: 0 };
  const say = (which, ...queues) => emptyQueue({ queue: "q", which: { escalated: false, skipped: false, ...which } }, queues);
  assert.equal(say({}).title, "There is no such queue");
  assert.equal(say({}, queue).title, "All clear");
  assert.match(say({}, { ...queue, open: 4 }).text, /4 images wait for somebody else: you skipped or judged them/);
  assert.equal(say({}, { ...queue, open: 4 }).link?.href, "#/review/q/skipped");
  assert.match(say({}, { ...queue, open: 3, leased: 3 }).text, /^In “q” 3 images are with other reviewers\.$/);
  assert.equal(say({ escalated: true }, { ...queue, open: 9 }).title, "All clear");
  assert.equal(say({ skipped: true }, { ...queue, open: 9 }).title, "No skipped images left");
});

test("a time to come is told in words, and one that has passed as late", () => {
  assert.equal(until(new Date(Date.now() + 2 * 3600_000).toISOString()), "in 2 h");
  assert.equal(until(new Date(Date.now() - 10 * 60_000).toISOString()), "10 min late");
});
