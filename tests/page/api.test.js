import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { desk, problem, requests, reset } from "./browser.js";
import { call, get, isPassing, isReachable, NotReady, post, Refused, setReachable, Unreachable, useToken, watchConnection } from "../../worker/review/page/js/parts/api.js";

const ana = { user: "ana", role: "reviewer", by: "local", csrf: "first" };

beforeEach(() => {
  reset();
  setReachable(true);
  useToken("first", ana);
});

test("an unsafe request carries the token, a safe one does not", async () => {
  await post("/v1/x", { a: 1 });
  await get("/v1/x");
  assert.deepEqual(requests.map(({ headers }) => headers["x-csrf-token"]), ["first", undefined]);
  assert.deepEqual(requests[0].body, { a: 1 });
});

test("no answer, and an answer by a proxy, mean that the desk cannot be reached", async () => {
  const told = [];
  const forget = watchConnection((reachable) => told.push(reachable));
  desk(new TypeError("failed to fetch"), { body: {} }, { status: 503, body: "Bad gateway" });
  await assert.rejects(get("/v1/x"), Unreachable);
  await get("/v1/x");
  await assert.rejects(get("/v1/x"), Unreachable);
  forget();
  assert.deepEqual(told, [false, true, false]);
});

test("a 503 of the desk itself is no lost connection, and carries the reason", async () => {
  desk(problem(503, "not-ready", "the index is being built"));
  await assert.rejects(get("/v1/x"), (error) => error instanceof NotReady && error.kind === "not-ready" && error.message === "the index is being built" && isPassing(error));
  assert.equal(isReachable(), true);
});

test("a refusal has its kind and its sentence, and does not pass", async () => {
  desk(problem(409, "lease-lost", "it ran out"));
  await assert.rejects(get("/v1/x"), (error) => error instanceof Refused && !(error instanceof NotReady) && error.kind === "lease-lost" && error.status === 409 && !isPassing(error));
});

test("a request that is cancelled says nothing of the connection", async () => {
  const controller = new AbortController();
  desk(async () => { controller.abort(); return { body: {} }; });
  await assert.rejects(get("/v1/x", { signal: controller.signal }), { name: "AbortError" });
  assert.equal(isReachable(), true);
});

test("after another tab has signed in again a request is sent again with the new token", async () => {
  desk(problem(403, "csrf"), { body: { ...ana, csrf: "second" } }, { body: { done: true } });
  assert.deepEqual(await post("/v1/x"), { done: true });
  assert.deepEqual(requests.map(({ path }) => path), ["/v1/x", "/v1/session", "/v1/x"]);
  assert.equal(requests[2].headers["x-csrf-token"], "second");
});

test("what one person asked is not sent again for another", async () => {
  const changed = [];
  document.addEventListener("session-changed", ({ detail }) => changed.push(detail.user), { once: true });
  desk(problem(403, "csrf"), { body: { ...ana, user: "ben", csrf: "second" } });
  await assert.rejects(call("POST", "/v1/x", {}), Unreachable);
  assert.deepEqual(changed, ["ben"]);
  assert.equal(requests.length, 2);
});

test("an ended session is told once to the page", async () => {
  let told = 0;
  document.addEventListener("signed-out", () => { told += 1; }, { once: true });
  desk(problem(401, "not-signed-in"));
  await assert.rejects(get("/v1/x"), (error) => error.status === 401 && isPassing(error));
  assert.equal(told, 1);
});
