/** Begins: who is it, what may they do, which view. */

import { get, isReachable, renewed, useToken, watchConnection } from "./parts/api.js";
import { announce, complain, explained } from "./parts/messages.js";
import { onReturn } from "./parts/away.js";
import { Bar } from "./parts/bar.js";
import { empty, h, replace } from "./parts/dom.js";
import { setKeys } from "./parts/keys.js";
import { connect, disconnect, probe } from "./parts/live.js";
import { Outbox } from "./parts/outbox.js";
import { applyGrey, applyTheme, preference, prefer } from "./parts/preferences.js";
import { roleIncludes } from "./parts/roles.js";
import { signIn } from "./views/sign-in.js";

const main = document.getElementById("main");
const connection = document.getElementById("connection");

/** Views, by the first part of the address after `#/`, and the role that each needs. */
const VIEWS = {
  review: { role: "reviewer", load: () => import("./views/review.js") },
  grid: { role: "reviewer", load: () => import("./views/grid.js") },
  queues: { role: "viewer", load: () => import("./views/queues.js") },
  search: { role: "viewer", load: () => import("./views/search.js") },
  dashboard: { role: "lead", load: () => import("./views/dashboard.js") },
  policy: { role: "lead", load: () => import("./views/policy.js") },
  dead: { role: "lead", load: () => import("./views/dead-letters.js") },
  people: { role: "admin", load: () => import("./views/people.js") },
};

/** What every view is given. */
const context = { me: null, about: null, outbox: null, bar: null, queue: preference("queue", null), setQueue };
/** Milliseconds that a view may take to give back what it held, so that the next one can have it. */
const LEAVING = 3000;
let leave = () => {};
/** The present view could not be shown; it is tried again when the desk answers. */
let broken = false;
let turn = 0;

async function begin() {
  applyTheme();
  applyGrey();
  if (!(await known())) await enter();
  await work();
}

async function known() {
  if (location.hash.startsWith("#invitation=")) return false;
  try {
    context.me = await get("/v1/session");
    useToken(context.me.csrf, context.me);
    return true;
  } catch (error) {
    if (error.status === 401) return false;
    replace(main, h("div.empty", { role: "status" }, h("div.spinner"), h("p", null, "The desk does not answer yet. Trying again …")));
    await new Promise((done) => setTimeout(done, 1500));
    return known();
  }
}

async function enter(message) {
  for (;;) {
    try {
      context.me = await signIn(main, message);
      return;
    } catch {
      await new Promise((done) => setTimeout(done, 1500));
    }
  }
}

async function work() {
  context.about = await get("/v1/desk");
  context.outbox ??= new Outbox(context.me.user);
  context.outbox.open();
  context.bar = new Bar(context);
  connect();
  await route();
}

function setQueue(name) {
  context.queue = name;
  prefer("queue", name);
  const [view] = address();
  if (view === "review" || view === "grid") location.hash = `#/${view}/${encodeURIComponent(name)}`;
}

function address() {
  return location.hash.replace(/^#\/?/, "").split("/").map(decoded).filter(Boolean);
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return ""; // it was cut off
  }
}

async function route() {
  if (!context.me || !context.about) return;
  const mine = ++turn;
  let [name, ...rest] = address();
  if (!VIEWS[name] || !roleIncludes(context.me.role, VIEWS[name].role)) [name, rest] = [roleIncludes(context.me.role, "reviewer") ? "review" : "queues", []];
  if ((name === "review" || name === "grid") && rest[0]) {
    context.queue = rest[0];
    prefer("queue", rest[0]);
  }
  const gone = leave();
  leave = () => gone;  // who comes before that has happened waits for it too
  setKeys(main, []);
  document.querySelectorAll(".toast").forEach((toast) => toast.remove());
  await Promise.race([gone, new Promise((done) => setTimeout(done, LEAVING))]);
  if (mine !== turn) return;
  try {
    const { show } = await VIEWS[name].load();
    if (mine !== turn) return;
    announce(context.bar.mark(name));
    // Each showing has a place of its own: a view that is still loading when another was chosen draws where nobody looks.
    const place = h("div.view");
    replace(main, place);
    main.scrollTop = 0;
    const shown = show(place, context, ...rest);
    // Also what is still being shown is left: it gives back what it took, so that the next one can have it.
    leave = async () => (await shown.catch(() => null))?.();
    await shown;
    if (mine !== turn) return;
    broken = false;
  } catch (error) {
    if (mine !== turn) return;
    complain(error);
    broken = true;
    replace(main, empty("broken", "This could not be shown", explained(error), h("button.button", { onclick: route, type: "button" }, "Try again")));
  }
}

watchConnection((reachable) => {
  context.bar?.live(reachable);
  connection.hidden = false;
  connection.classList.toggle("back", reachable);
  if (reachable) {
    connection.textContent = "Connected again";
    context.outbox?.retry();
    if (broken) route();
    setTimeout(() => { connection.hidden = isReachable(); }, 2000);
  } else {
    connection.textContent = "The connection to the desk is lost. What you decided is kept here and sent when it is back.";
    probe();
  }
});

document.addEventListener("signed-out", async ({ detail }) => {
  if (!context.me) return;
  const former = context.me;
  context.me = null;
  const message = detail?.wanted ? null : `Your session is over. Sign in to go on${context.outbox?.size ? ": what you decided is kept" : ""}.`;
  context.outbox?.close();
  turn += 1;
  leave();
  leave = () => {};
  setKeys(main, []);
  disconnect();
  context.bar?.hide();
  document.querySelectorAll(".toast, dialog").forEach((each) => each.remove());
  await enter(message);
  if (context.me.user === former.user) await work();
  else anew();
});

/** For somebody else nothing is left of what the page showed, nor where. */
function anew() {
  history.replaceState(null, "", "/");
  location.reload();
}

// Another tab has signed in as somebody else, or with another role: all that is shown here is drawn for whom it is now.
document.addEventListener("session-changed", ({ detail: me }) => (me.user === context.me?.user ? location.reload() : anew()));
onReturn(() => { if (context.me) renewed().catch(() => {}); });

addEventListener("hashchange", route);
// What waits is kept for this tab alone.
addEventListener("beforeunload", (event) => { if (context.me && context.outbox?.size && !isReachable()) event.preventDefault(); });

begin();
