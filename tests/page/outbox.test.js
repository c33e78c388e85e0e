import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";
import { desk, problem, requests, reset, rest } from "./browser.js";
import { setReachable } from "../../worker/review/page/js/parts/api.js";
import { Outbox } from "../../worker/review/page/js/parts/outbox.js";

const decision = (id, outcome = "reject") => ({ decision_id: id, item_id: `item-${id}`, token: 1, outcome, labels: [], note: null });
const lease = (id) => ({ queue: "quality", item_id: `item-${id}`, token: 1, expires_at: "", items: [] });
const decided = ({ path, body }) => (path.endsWith("/bulk") ? { body: body.decisions.map((each) => ({ item_id: each.item_id, decided: { resolution: each.outcome } })) } : { body: { resolution: body.outcome } });
const waiting = () => JSON.parse(sessionStorage.getItem("sluice.outbox.ana"));

/** An outbox that is open, and what it tells. */
function opened() {
  const outbox = new Outbox("ana");
  const told = [];
  for (const kind of ["sent", "refused", "undone", "stands", "waiting"]) outbox.addEventListener(kind, (event) => told.push([kind, event.detail.decision?.decision_id ?? event.detail.id ?? event.detail.error?.message ?? null]));
  outbox.open();
  return { outbox, told };
}

beforeEach(() => {
  reset(decided);
  setReachable(true);
});

test("a decision is sent at once and forgotten when the desk has it", async () => {
  const { outbox, told } = opened();
  outbox.add(decision("a"));
  assert.equal(waiting().length, 1);
  await rest();
  assert.deepEqual(told, [["sent", "a"]]);
  assert.deepEqual(waiting(), []);
  assert.equal(requests[0].path, "/v1/decisions");
});

test("many decisions go in one request, and each has its own result", async () => {
  const { outbox, told } = opened();
  desk({ body: [{ item_id: "item-a", decided: {} }, { item_id: "item-b", refused: { kind: "lease-lost", detail: "gone" } }] });
  outbox.add(decision("a"), decision("b"));
  await rest();
  assert.deepEqual(requests.map(({ path }) => path), ["/v1/decisions/bulk"]);
  assert.deepEqual(told, [["sent", "a"], ["refused", "b"]]);
  assert.equal(outbox.size, 0);
});

test("of many decisions those that the log did not take are kept and sent again under their ids", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const settle = async () => { for (let turn = 0; turn < 20; turn += 1) await Promise.resolve(); };
  const { outbox, told } = opened();
  desk({ body: [{ item_id: "item-a", decided: {} }, { item_id: "item-b", refused: { kind: "not-recorded", detail: "Kafka is away" } }] });
  outbox.add(decision("a"), decision("b", "escalate"));
  await settle();
  assert.deepEqual(waiting().map((each) => each.decision_id), ["b"]);
  assert.deepEqual(told, [["waiting", "Kafka is away"], ["sent", "a"]]);
  mock.timers.tick(1500);
  await settle();
  mock.timers.reset();
  assert.deepEqual(told.slice(2), [["waiting", null], ["sent", "b"]]);
  assert.equal(requests[1].body.decision_id, "b");
});

test("without an answer a decision is kept, also over a reload, and sent again when the desk can be reached", async () => {
  const { outbox } = opened();
  desk(new TypeError("offline"));
  outbox.add(decision("a", "escalate"));
  await rest();
  assert.equal(outbox.isWaiting, true);
  outbox.close();
  const { told } = opened();
  await rest();
  assert.deepEqual(told, [["sent", "a"]]);
  assert.deepEqual(requests.map(({ body }) => body.outcome), ["escalate", "escalate"]);
});

test("another person's decisions are not sent", async () => {
  sessionStorage.setItem("sluice.outbox.ana", JSON.stringify([decision("a")]));
  new Outbox("ben").open();
  await rest();
  assert.equal(requests.length, 0);
  assert.equal(waiting().length, 1);
});

test("a decision that was not sent yet is taken back without the desk", async () => {
  const outbox = new Outbox("ana");
  outbox.add(decision("a"));
  const mine = lease("a");
  assert.equal(await outbox.takeBack("a", mine), mine);
  assert.equal(outbox.size, 0);
  assert.equal(requests.length, 0);
});

test("a decision that the desk may have is taken back there, after it was sent again", async () => {
  const { outbox, told } = opened();
  desk(new TypeError("lost"));
  outbox.add(decision("a"));
  await rest();
  assert.equal(await outbox.takeBack("a", lease("a")), null);
  reset((request) => (request.path.endsWith("/undo") ? { body: lease("a") } : decided(request)));
  outbox.addEventListener("undone", (event) => event.preventDefault());
  setReachable(true);
  outbox.retry();
  await rest();
  assert.deepEqual(requests.map(({ path }) => path), ["/v1/decisions", "/v1/decisions/a/undo"]);
  assert.deepEqual(told, [["sent", "a"], ["undone", "a"]]);
});

test("the lease of a late undo goes back when no view keeps it", async () => {
  const { outbox } = opened();
  desk({ body: {} }, new TypeError("lost"), { body: lease("a") });
  outbox.add(decision("a"));
  await rest();
  assert.equal(await outbox.takeBack("a", lease("a")), null);
  outbox.retry();
  await rest();
  assert.deepEqual(requests.at(-1).path, "/v1/leases/release");
  assert.deepEqual(requests.at(-1).body.leases, [{ item_id: "item-a", token: 1 }]);
});

test("an undo that the desk refuses late is told, and one refused at once is raised", async () => {
  const { outbox, told } = opened();
  desk({ body: {} }, problem(409, "not-possible", "too late"));
  outbox.add(decision("a"));
  await rest();
  await assert.rejects(outbox.takeBack("a", lease("a")), { message: "too late" });
  desk(new TypeError("lost"), problem(409, "not-possible", "too late"));
  assert.equal(await outbox.takeBack("a", lease("a")), null);
  outbox.retry();
  await rest();
  assert.deepEqual(told.at(-1), ["stands", "a"]);
});

test("what waits keeps its order: decisions before the undo that came after them", async () => {
  const outbox = new Outbox("ana");
  sessionStorage.setItem("sluice.outbox.ana", JSON.stringify([decision("a"), decision("b"), { undo: "x" }, decision("c")]));
  const again = new Outbox("ana");
  reset((request) => (request.path.endsWith("/undo") ? { body: lease("x") } : decided(request)));
  again.open();
  await rest();
  assert.deepEqual(requests.map(({ path }) => path).filter((path) => !path.endsWith("release")), ["/v1/decisions/bulk", "/v1/decisions/x/undo", "/v1/decisions"]);
  assert.equal(outbox.size, 0);
});
