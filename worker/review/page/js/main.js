/** Starts the page: who is signed in, what they may do, and which view the address names. */

import { get, NotReady, renewed, useToken, watchConnection } from "./parts/api.js";
import { Actions } from "./parts/actions.js";
import { address, parseAddress } from "./parts/address.js";
import { announce, complain, explained } from "./parts/messages.js";
import { onReturn } from "./parts/away.js";
import { Banner } from "./parts/banner.js";
import { Bar } from "./parts/bar.js";
import { empty, h, replace } from "./parts/dom.js";
import { setKeys } from "./parts/keys.js";
import { forgetIndex, watchIndex } from "./parts/index-progress.js";
import { connect, disconnect, probe } from "./parts/live.js";
import { Outbox } from "./parts/outbox.js";
import { applyGrey, applyTheme, preference, prefer } from "./parts/preferences.js";
import { roleIncludes } from "./parts/roles.js";
import { signIn } from "./views/sign-in.js";

const main = /** @type {HTMLElement} */ (document.getElementById("main"));
const banner = new Banner(document.getElementById("connection"));

/** @type {Record<string, { role: string, load: () => Promise<{ show: Function }> }>} Views by name, and the role that each needs. */
const VIEWS = {
  review: { role: "reviewer", load: () => import("./views/review.js") },
  grid: { role: "reviewer", load: () => import("./views/grid.js") },
  mine: { role: "reviewer", load: () => import("./views/mine.js") },
  queues: { role: "viewer", load: () => import("./views/queues.js") },
  search: { role: "viewer", load: () => import("./views/search.js") },
  item: { role: "viewer", load: () => import("./views/item.js") },
  dashboard: { role: "lead", load: () => import("./views/dashboard.js") },
  policy: { role: "lead", load: () => import("./views/policy.js") },
  dead: { role: "lead", load: () => import("./views/dead-letters.js") },
  webhooks: { role: "lead", load: () => import("./views/webhooks.js") },
  people: { role: "admin", load: () => import("./views/people.js") },
};

/**
 * What every view is given.
 * @type {any}
 */
const context = { me: null, about: null, outbox: null, actions: null, bar: null, queue: preference("queue", null), setQueue };
/** Milliseconds that a view may take to give its leases back, so that the next view can have them. */
const LEAVING = 3000;
/** Milliseconds until a desk that did not answer is asked again. */
const AGAIN = 1500;
/** @type {() => any} */
let leave = () => {};
/** Whether the present view could not be shown; it is tried again when the desk answers. */
let broken = false;
/** Counts views that were begun: a view that loads slowly must not replace one that was chosen after it. */
let turn = 0;

async function begin() {
  applyTheme();
  applyGrey();
  if (!(await isSignedIn())) await enter();
  await work();
}

/** @returns {Promise<boolean>} */
async function isSignedIn() {
  if (location.hash.startsWith("#invitation=")) return false;
  try {
    context.me = await get("/v1/session");
    useToken(context.me.csrf, context.me);
    return true;
  } catch (/** @type {any} */ error) {
    if (error.status === 401) return false;
    const why = error instanceof NotReady ? explained(error) : "The desk does not answer yet";
    replace(main, h("div.empty", { role: "status" }, h("div.spinner"), h("p", null, `${why}. Trying again …`)));
    await new Promise((done) => { setTimeout(done, AGAIN); });
    return isSignedIn();
  }
}

async function enter(/** @type {string | null} */ message = null) {
  for (;;) {
    try {
      context.me = await signIn(main, message);
      return;
    } catch {
      await new Promise((done) => { setTimeout(done, AGAIN); });
    }
  }
}

async function work() {
  context.about = await get("/v1/desk");
  if (!context.outbox) {
    context.outbox = new Outbox(context.me.user);
    context.outbox.addEventListener("waiting", (/** @type {CustomEvent} */ { detail }) => banner.notReady(detail.error));
    context.actions = new Actions(context.outbox, context.about.undo_seconds);
  }
  context.outbox.open();
  context.bar = new Bar(context);
  watchIndex(banner);
  connect();
  await route();
}

function setQueue(/** @type {string} */ name) {
  context.queue = name;
  prefer("queue", name);
  const { view } = parseAddress(location.hash);
  if (view === "review" || view === "grid") location.hash = address(view, name);
}

async function route() {
  if (!context.me || !context.about) return;
  const mine = ++turn;
  let { view: name, parts, params } = parseAddress(location.hash);
  if (!VIEWS[name] || !roleIncludes(context.me.role, VIEWS[name].role)) [name, parts] = [roleIncludes(context.me.role, "reviewer") ? "review" : "queues", []];
  if ((name === "review" || name === "grid") && parts[0]) {
    context.queue = parts[0];
    prefer("queue", parts[0]);
  }
  const left = leave();
  leave = () => left; // a view that is chosen before that is over waits for it, too
  setKeys(main, []);
  document.querySelectorAll(".toast:not(.kept), dialog").forEach((each) => each.remove());
  await Promise.race([left, new Promise((done) => { setTimeout(done, LEAVING); })]);
  if (mine !== turn) return;
  try {
    const { show } = await VIEWS[name].load();
    if (mine !== turn) return;
    announce(context.bar.mark(name));
    // Each view draws into an element of its own: one that is still loading when another is chosen draws out of sight.
    const place = h("div.view");
    replace(main, place);
    main.scrollTop = 0;
    const shown = show(place, context, parts, params);
    // A view that is left while it loads gives back what it leased, too.
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
  banner.reachable(reachable);
  if (reachable) {
    context.outbox?.retry();
    if (broken) route();
  } else probe();
});

document.addEventListener("signed-out", async (/** @type {any} */ { detail }) => {
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
  forgetIndex();
  context.bar?.hide();
  document.querySelectorAll(".toast, dialog").forEach((each) => each.remove());
  await enter(message);
  if (context.me.user === former.user) await work();
  else startOver();
});

/** For another person nothing stays of what the page showed, nor its address. */
function startOver() {
  history.replaceState(null, "", "/");
  location.reload();
}

// Another tab has signed in as somebody else, or with another role: all that is shown here was drawn for the former.
document.addEventListener("session-changed", (/** @type {any} */ { detail: me }) => (me.user === context.me?.user ? location.reload() : startOver()));
onReturn(() => { if (context.me) renewed().catch(() => {}); });

// The page comes back from the back/forward cache as it was left, but its leases went back when it was left.
addEventListener("pageshow", (event) => {
  if (!event.persisted || !context.me) return;
  route();
  connect();
  context.outbox?.retry();
  renewed().catch(() => {});
});

addEventListener("hashchange", route);
// Decisions that wait are kept for this tab alone.
addEventListener("beforeunload", (event) => { if (context.me && context.outbox?.isWaiting) event.preventDefault(); });

begin();
