import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { requests, reset, rest } from "./browser.js";
import { setReachable } from "../../worker/review/page/js/parts/api.js";
import { Shelf } from "../../worker/review/page/js/parts/shelf.js";

const lease = (id) => ({ queue: "quality", item_id: id, token: 7, expires_at: "", items: [] });
let shelf;
let free;
let lost;

/** A desk with items `a` to `z` to lease. */
function answer({ path, body }) {
  if (path.endsWith("/leases")) return { body: free.splice(0, body.count).map(lease) };
  if (path.endsWith("/heartbeat")) return { body: body.leases.map(({ item_id: id }) => ({ item_id: id, expires_at: lost.has(id) ? null : "later" })) };
  return { status: 204 };
}

const made = (which) => new Shelf("a queue/name", 3, 60, which);

beforeEach(() => {
  reset(answer);
  setReachable(true);
  free = [..."abcdefgh"];
  lost = new Set();
});

afterEach(async () => {
  await shelf?.close();
  mock.timers.reset();
});

test("it leases as many as it keeps ahead, of its queue and its kind", async () => {
  shelf = made({ skipped: true });
  await shelf.fill();
  assert.deepEqual(shelf.leases.map((each) => each.item_id), ["a", "b", "c"]);
  const [{ path, body }] = requests;
  assert.equal(path, "/v1/queues/a%20queue%2Fname/leases");
  assert.deepEqual([body.count, body.skipped, body.escalated], [3, true, false]);
});

test("calls during a request make one more request, not many", async () => {
  shelf = made();
  const first = shelf.fill();
  shelf.fill();
  await first;
  shelf.remove("a");
  await shelf.fill();
  assert.deepEqual(requests.map(({ body }) => body.count), [3, 1]);
});

test("what it holds goes back when it is closed, by a request that outlives the page", async () => {
  shelf = made();
  await shelf.fill();
  await shelf.close();
  const last = requests.at(-1);
  assert.deepEqual([last.path, last.keepalive, last.body.leases.length], ["/v1/leases/release", true, 3]);
});

test("hiding the page gives everything back", async () => {
  shelf = made();
  await shelf.fill();
  dispatchEvent(new Event("pagehide"));
  await rest();
  assert.equal(requests.at(-1).path, "/v1/leases/release");
  assert.deepEqual(shelf.leases, []);
});

test("a request whose answer did not come is withdrawn with the close", async () => {
  shelf = made();
  reset(() => new TypeError("offline"));
  await assert.rejects(shelf.fill());
  const { request_id: asked } = requests[0].body;
  reset(answer);
  await shelf.close();
  assert.deepEqual(requests[0].body.requests, [asked]);
});

test("a lease that was lost is told and taken off", async () => {
  shelf = made();
  await shelf.fill();
  const told = [];
  shelf.addEventListener("lost", ({ detail }) => told.push(detail.lease.item_id));
  lost.add("b");
  await shelf.check();
  assert.deepEqual(told, ["b"]);
  assert.deepEqual(shelf.leases.map((each) => each.item_id), ["a", "c"]);
});

test("a tab that was frozen looks after its leases as soon as it is seen again", async () => {
  mock.timers.enable({ apis: ["Date"], now: 1000 });
  shelf = made();
  await shelf.fill();
  document.dispatchEvent(new Event("visibilitychange"));
  await rest();
  assert.equal(requests.filter(({ path }) => path.endsWith("/heartbeat")).length, 0);
  mock.timers.setTime(1000 + 3_600_000);
  document.dispatchEvent(new Event("visibilitychange"));
  await rest();
  assert.equal(requests.filter(({ path }) => path.endsWith("/heartbeat")).length, 1);
});

test("an image that was taken back stands in front, or behind the one that is looked at", async () => {
  shelf = made();
  await shelf.fill();
  shelf.putFirst(lease("x"));
  shelf.putSecond(lease("y"));
  assert.deepEqual(shelf.leases.map((each) => each.item_id), ["x", "y", "a", "b", "c"]);
  await shelf.close();
  shelf.putFirst(lease("z"));
  await rest();
  assert.deepEqual(requests.at(-1).body.leases, [{ item_id: "z", token: 7 }]);
});
