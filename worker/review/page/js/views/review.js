/** One image at a time, by keyboard. */

import { get, isReachable, post, watchConnection } from "../parts/api.js";
import { watchAway } from "../parts/away.js";
import { button, empty, h, replace } from "../parts/dom.js";
import { duplicates, itemPanel } from "../parts/item-panel.js";
import { setKeys } from "../parts/keys.js";
import { onDeskEvent } from "../parts/live.js";
import { announce, complain, explained, toast } from "../parts/messages.js";
import { described, large, missing, originalSize, picture, preload } from "../parts/pictures.js";
import { applyGrey, prefer, preference } from "../parts/preferences.js";
import { waitForQueue } from "../parts/first-queue.js";
import { LOOK_AGAIN, Shelf } from "../parts/shelf.js";
import { count } from "../parts/words.js";

const AHEAD = 4;
/** Pixels that an arrow key moves an image in native pixels. */
const PAN = 120;
/** Milliseconds: a heat map takes seconds of all the desk's processors. */
const HEAT_PATIENCE = 120_000;
const DONE = { approve: "Approved", reject: "Rejected" };

export async function show(main, context, queue, special) {
  await context.bar.refresh();
  const name = queue ?? context.queue;
  if (!name) return waitForQueue(main, context, "review");
  const view = new Review(main, context, name, special === "escalated");
  await view.begin();
  return () => view.leave();
}

/** What a heat map is, so that nobody takes it for more. */
function heatWords({ largest, flat, same_model: same }) {
  const strongest = flat ? "no spot stands out" : `at most ${largest.toFixed(2)} points of quality`;
  return `By occlusion: red where hiding a spot from the fine stream raises the score more than elsewhere, blue where it lowers it; ${strongest}.${same ? "" : " Made by another model than the one that judged the image."}`;
}

class Review {
  #main; #context; #shelf; #listeners = []; #timers = [];
  #lease = null; #twin = 0; #seen = false; #shownAt = 0; #labels = new Set(); #native = false; #heat = null; #away = false;
  #blur = preference("blur", false); #grey = preference("grey", false);
  #decided = 0; #seconds = []; #last = null; #dismissUndo = () => {};
  /** Decisions that the desk is yet to take back, by their ids; and what was said in those it has, by their items. */
  #regretted = new Map(); #said = new Map();
  #frame = h("div.frame", { tabindex: "-1" }); #side = h("aside.side", { "aria-label": "About this image" });
  #tools; #size = h("span.size"); #actions; #pace = h("div.pace", { "aria-hidden": "true" }); #note; #reasons;

  constructor(main, context, queue, escalated) {
    this.#main = main;
    this.#context = context;
    this.#shelf = new Shelf(queue, AHEAD, context.about.lease_seconds, { escalated });
    this.#build();
    this.#keys();
  }

  async begin() {
    this.#listen(this.#shelf, "lost", ({ detail }) => this.#lost(detail.lease));
    this.#listen(this.#context.outbox, "sent", ({ detail }) => this.#sent(detail));
    this.#listen(this.#context.outbox, "refused", ({ detail }) => this.#refused(detail));
    this.#listen(this.#context.outbox, "undone", (event) => this.#undone(event));
    this.#listen(this.#context.outbox, "stands", ({ detail }) => toast(`Your decision stands: ${detail.error.message}`, { bad: true, seconds: 12 }));
    this.#listen(this.#context.outbox, "change", () => this.#drawPace());
    this.#listeners.push(onDeskEvent((event) => { if (!this.#lease && event.queue === this.#shelf.queue) this.#next(); }));
    this.#timers.push(setInterval(() => { if (!this.#lease && !this.#away) this.#next(); }, LOOK_AGAIN));
    this.#listeners.push(watchConnection((reachable) => { if (reachable && !this.#away) this.#comeBack(); }));
    this.#listeners.push(watchAway(this.#main, () => this.leave()));
    await this.#next();
  }

  leave() {
    this.#listeners.forEach((forget) => forget());
    this.#timers.forEach(clearInterval);
    this.#dismissUndo();
    this.#away = true;
    // A decision that is on its way has taken its lease off the shelf; all others go back.
    return this.#shelf.close();
  }

  #listen(target, kind, listener) {
    target.addEventListener(kind, listener);
    this.#listeners.push(() => target.removeEventListener(kind, listener));
  }

  // -- the page ------------------------------------------------------------------------------------------------------

  #build() {
    const tool = (label, iconName, key, pressed, onclick) => button(label, { key, iconName, kind: "plain", onclick, "aria-pressed": String(pressed) });
    this.#tools = {
      blur: tool("Blur", "blur", "B", this.#blur, () => this.#toggleBlur()),
      grey: tool("Grey", "grey", "G", this.#grey, () => this.#toggleGrey()),
      native: tool("1:1", "zoom", "Z", false, () => this.#toggleNative()),
      heat: tool("Heat", "heat", "H", false, () => this.#toggleHeat()),
    };
    const act = (label, iconName, key, kind, run) => button(label, { key, iconName, kind, onclick: run });
    this.#actions = [
      act("Approve", "check", "A", "approve", () => this.#decide("approve")),
      act("Reject", "cross", "R", "reject", () => this.#decide("reject")),
      act("Skip", "skip", "S", "", () => this.#pass("skip")),
      act("Escalate", "up", "E", "", () => this.#pass("escalate")),
      act("Hold", "pause", "W", "", () => this.#pass("hold")),
    ];
    this.#note = h("textarea", { rows: "2", maxlength: "4000", "aria-label": "Note for others", placeholder: "A note for others (N)" });
    this.#reasons = this.#context.about.labels.map((label, index) => h("button.button", { type: "button", "aria-pressed": "false", onclick: () => this.#toggleLabel(label) }, h("kbd", { "aria-hidden": "true" }, String(index + 1)), label));
    this.#pan();
    replace(this.#main, h("h1.unseen", null, `Review: ${this.#shelf.queue}`), h("div.desk", null,
      h("section.stage", { "aria-label": "Image" }, this.#frame, h("div.tools", { role: "group", "aria-label": "View" }, ...Object.values(this.#tools), this.#size)),
      this.#side,
      h("div.actions", { role: "group", "aria-label": "Decide" }, ...this.#actions, h("span.space"), this.#pace)));
  }

  #keys() {
    const pan = (x, y) => () => { if (this.#native) this.#frame.scrollBy({ left: x, top: y }); };
    setKeys(this.#main, [
      { title: "Decide", keys: [
        { key: "a", label: "Approve", run: () => this.#decide("approve") },
        { key: "r", label: "Reject", run: () => this.#decide("reject") },
        { key: "s", label: "Skip: somebody else's", run: () => this.#pass("skip") },
        { key: "e", label: "Escalate to a lead", run: () => this.#pass("escalate") },
        { key: "w", label: "Hold: it can wait, set aside", run: () => this.#pass("hold") },
        { key: "u", label: `Undo, for ${this.#context.about.undo_seconds} seconds`, run: () => this.#undo() },
      ] },
      { title: "Say why", keys: [
        ...this.#context.about.labels.map((label, index) => ({ key: String(index + 1), label, run: () => this.#toggleLabel(label) })),
        { key: "n", label: "Write a note (Esc leaves it)", run: () => this.#note.focus() },
      ] },
      { title: "Look", keys: [
        { key: "b", label: "Blur on and off", run: () => this.#toggleBlur() },
        { key: "g", label: "Grey on and off", run: () => this.#toggleGrey() },
        { key: "z", label: "Native pixels", run: () => this.#toggleNative() },
        { key: "h", label: "Heat map: where the model sees damage", run: () => this.#toggleHeat() },
        { key: "ArrowLeft", label: "Move about in native pixels", also: ["ArrowUp", "ArrowDown", "ArrowRight"], repeats: true, run: (event) => pan(...{ ArrowLeft: [-PAN, 0], ArrowRight: [PAN, 0], ArrowUp: [0, -PAN], ArrowDown: [0, PAN] }[event.key])() },
        { key: "d", label: "Next of the near duplicates", run: () => this.#lookAt((this.#twin + 1) % (this.#lease?.items.length ?? 1)) },
        { key: "p", label: "Part near duplicates", run: () => this.#split() },
      ] },
    ]);
  }

  /** Shows the item in front, at once; more are fetched behind it. */
  async #next() {
    if (this.#away) return;
    let failed = null;
    if (this.#shelf.current !== this.#lease || !this.#lease) this.#draw(this.#shelf.current);
    try {
      await this.#shelf.fill();
    } catch (error) {
      failed = error;
      if (this.#lease) complain(error);
    }
    if (this.#away) return;
    if (!this.#lease) this.#draw(this.#shelf.current, { asked: true, failed });
    for (const { items } of this.#shelf.leases) preload(this.#address(items[0]));
  }

  #draw(lease, { asked = false, failed = null } = {}) {
    const before = this.#lease;
    this.#lease = lease;
    this.#twin = 0;
    this.#heat = null;
    const said = this.#said.get(lease?.item_id);
    this.#labels = new Set(said?.labels);
    this.#note.value = said?.note ?? "";
    this.#drawReasons();
    this.#main.querySelector(".desk").toggleAttribute("data-empty", !lease);
    for (const each of this.#actions) each.disabled = !lease;
    this.#drawPace();
    if (!lease) {
      if (before || asked) this.#drawEmpty(asked, failed);
      return;
    }
    this.#shownAt = performance.now();
    const item = lease.items[0];
    this.#drawImage();
    this.#drawSide();
    this.#side.scrollTop = 0;
    announce(described(item));
  }

  #drawSide() {
    const lease = this.#lease;
    replace(this.#side, h("h2.unseen", null, "About this image"), itemPanel(this.#item, duplicates(lease, this.#twin, (index) => this.#lookAt(index), () => this.#split()), this.#drawWhy()));
  }

  /** The one of the near duplicates that is looked at. */
  get #item() {
    return this.#lease.items[this.#twin];
  }

  #drawWhy() {
    return h("section.block", null, h("h3", null, "Your reasons"), h("div.reasons", null, this.#reasons), this.#note);
  }

  /** Only what the desk has said is told: that it could not be asked is no empty queue. */
  #drawEmpty(asked, failed) {
    replace(this.#side);
    this.#frame.className = "frame";
    if (!asked) return replace(this.#frame, h("div.spinner"));
    if (failed) {
      announce(explained(failed));
      return replace(this.#frame, empty("offline", "Nothing could be fetched", explained(failed)));
    }
    announce("Nothing is waiting");
    return replace(this.#frame, empty("check", "All clear", `Nothing waits for you in “${this.#shelf.queue}”. New images appear here by themselves.`, h("a.button", { href: "#/queues" }, "See the other queues")));
  }

  #address(item) {
    return item.image && large(item.image);
  }

  #drawImage() {
    const item = this.#item;
    const heat = !this.#blur && this.#heat?.map;
    const native = this.#native && !this.#blur && !heat && item.image;
    this.#frame.className = `frame${native ? " native" : ""}${heat ? " heat" : ""}`;
    this.#seen = true;
    this.#tools.blur.setAttribute("aria-pressed", String(this.#blur));
    this.#tools.native.setAttribute("aria-pressed", String(Boolean(native)));
    this.#tools.heat.setAttribute("aria-pressed", String(Boolean(heat)));
    this.#tools.heat.setAttribute("aria-busy", String(Boolean(this.#heat && !this.#heat.map)));
    replace(this.#size);
    if (!item.image) return replace(this.#frame, missing("There is no image", item.failure?.message ?? ""));
    const onmissing = (title, detail) => {
      if (this.#lease && this.#item === item) {
        this.#frame.classList.remove("loading");
        replace(this.#frame, missing(title, detail));
      }
    };
    if (heat) return replace(this.#frame, picture(heat.picture, `heat map: ${heatWords(heat)}`, { onmissing, className: "fit" }), h("p.veil.notice", null, heatWords(heat)));
    const image = picture(native ? item.image.native : this.#address(item), described(item), { onmissing, className: native ? "" : "fit" });
    if (!image.complete) this.#load(image);
    image.decode().then(() => this.#drawSize(image), () => {});
    if (native) {
      // One pixel of the image is one pixel of the screen, whatever the browser's zoom.
      const size = () => {
        image.style.width = `${image.naturalWidth / devicePixelRatio}px`;
        this.#frame.scrollTo((this.#frame.scrollWidth - this.#frame.clientWidth) / 2, (this.#frame.scrollHeight - this.#frame.clientHeight) / 2);
      };
      if (image.complete) requestAnimationFrame(size);
      else image.addEventListener("load", size, { once: true });
    }
    return replace(this.#frame, image);
  }

  /** How large the image is, and how much larger it is drawn: a small one looks soft for that alone. */
  async #drawSize(image) {
    const size = await originalSize(image.currentSrc);
    if (!size || image.parentElement !== this.#frame) return;
    const { width, height } = size;
    const larger = devicePixelRatio * Math.min(image.clientWidth / width, image.clientHeight / height);
    const enlarged = image.classList.contains("fit") && !this.#blur && larger >= 1.5;
    replace(this.#size, `${width} × ${height}`, enlarged && h("b", null, ` drawn ${larger.toFixed(larger < 10 ? 1 : 0)} × larger`));
    this.#size.title = "Pixels of the image, width and height";
  }

  /** Until the image is there it is not decided about. */
  #load(image) {
    this.#seen = false;
    this.#frame.classList.add("loading");
    const there = () => {
      if (image.parentElement !== this.#frame) return;
      this.#seen = true;
      this.#shownAt = performance.now();
      this.#frame.classList.remove("loading");
    };
    for (const kind of ["load", "error"]) image.addEventListener(kind, there, { once: true });
  }

  #lookAt(index) {
    if (!this.#lease || index === this.#twin) return;
    this.#twin = index;
    this.#heat = null;
    const within = this.#side.contains(document.activeElement) && document.activeElement.closest(".twins");
    this.#drawImage();
    this.#drawSide();
    if (within) this.#side.querySelector(".twins [aria-pressed=true]")?.focus();
    announce(`Image ${index + 1} of ${this.#lease.items.length}. ${described(this.#item)}`);
  }

  #drawReasons() {
    this.#context.about.labels.forEach((label, index) => this.#reasons[index].setAttribute("aria-pressed", String(this.#labels.has(label))));
  }

  #drawPace() {
    const waiting = this.#context.outbox.size;
    const middle = [...this.#seconds].sort((a, b) => a - b)[this.#seconds.length >> 1];
    replace(this.#pace,
      waiting > 0 && !isReachable() && h("span", null, h("b", null, String(waiting)), "to be sent"),
      h("span", null, h("b", null, String(this.#decided)), "decided"),
      middle !== undefined && h("span", null, h("b", null, `${middle.toFixed(1)} s`), "each"));
  }

  /** The connection is back: what ran out meanwhile is told, and an image that could not be had is asked for again. */
  async #comeBack() {
    if (this.#lease && this.#frame.querySelector(".missing")) this.#drawImage();
    await this.#shelf.check();
    await this.#next();
  }

  // -- what the keys do ----------------------------------------------------------------------------------------------

  #decide(outcome) {
    const lease = this.#lease;
    if (!lease) return;
    if (!this.#seen) return void toast("The image is still on its way");
    const seconds = Math.min(3600, (performance.now() - this.#shownAt) / 1000);
    const decision = { decision_id: crypto.randomUUID(), item_id: lease.item_id, token: lease.token, outcome, labels: [...this.#labels], note: this.#note.value.trim() || null, seconds_spent: Math.round(seconds * 100) / 100 };
    this.#shelf.remove(lease.item_id);
    this.#said.delete(lease.item_id);
    this.#decided += 1;
    this.#seconds.push(decision.seconds_spent);
    this.#last = { decision, lease, at: performance.now() };
    this.#context.outbox.add(decision);
    this.#offerUndo(outcome, lease.items.length);
    this.#next();
  }

  #offerUndo(outcome, items) {
    this.#dismissUndo();
    const seconds = this.#context.about.undo_seconds;
    const text = items > 1 ? `${DONE[outcome]} ${count(items, "image")}` : DONE[outcome];
    this.#dismissUndo = toast(text, { seconds, timer: true, action: { label: "Undo", key: "U", run: () => this.#undo() } });
  }

  async #undo() {
    const last = this.#last;
    const outbox = this.#context.outbox;
    if (!last || performance.now() - last.at > 1000 * this.#context.about.undo_seconds) {
      toast("There is nothing to undo: only the last decision, and only for a few seconds");
      return;
    }
    this.#last = null;
    this.#dismissUndo();
    const { decision } = last;
    try {
      const lease = await outbox.takeBack(decision.decision_id, last.lease);
      if (!lease) {
        const told = toast("It is taken back as soon as the desk answers");
        return void this.#regretted.set(decision.decision_id, { decision, told });
      }
      this.#takenBack(lease, decision);
      this.#shelf.putFirst(lease);
      if (this.#away) return;
      this.#draw(lease);
      toast("Taken back");
    } catch (error) {
      complain(error);
    }
  }

  /** The desk has answered late: what one looks at by now stays, so that no key meant for it decides about another. */
  #undone(event) {
    const { id, lease } = event.detail;
    if (lease.queue !== this.#shelf.queue || this.#away) return;
    event.preventDefault();
    const { decision = null, told } = this.#regretted.get(id) ?? {};
    this.#regretted.delete(id);
    told?.();
    this.#takenBack(lease, decision);
    if (this.#lease) {
      this.#shelf.putSecond(lease);
      toast("Taken back: that image comes next");
    } else {
      this.#shelf.putFirst(lease);
      this.#draw(lease);
      toast("Taken back");
    }
  }

  #takenBack(lease, decision) {
    if (!decision) return; // made before the page was loaded anew, and not counted here
    this.#decided = Math.max(0, this.#decided - 1);
    this.#seconds.splice(this.#seconds.lastIndexOf(decision.seconds_spent), 1);
    this.#said.set(lease.item_id, decision);
    this.#drawPace();
  }

  async #pass(what) {
    const lease = this.#lease;
    if (!lease) return;
    const note = this.#note.value.trim() || null;
    this.#shelf.remove(lease.item_id);
    this.#said.delete(lease.item_id);
    this.#next();
    try {
      if (what === "skip") await post("/v1/leases/skip", { item_id: lease.item_id, token: lease.token });
      else await post(`/v1/items/${encodeURIComponent(lease.item_id)}/${what}`, { token: lease.token, note });
      toast({ skip: "Left for somebody else", escalate: "Passed on to the leads", hold: "Set aside" }[what]);
    } catch (error) {
      if (error.kind === "lease-lost") return toast("That item was no longer yours", { bad: true });
      complain(error);
      this.#shelf.putFirst(lease);
      this.#draw(lease);
    }
  }

  async #split() {
    const lease = this.#lease;
    if (!lease || lease.items.length < 2) return;
    try {
      await post("/v1/clusters/split", { item_ids: [lease.item_id], token: lease.token });
      lease.items = lease.items.slice(0, 1);
      this.#twin = 0;
      this.#heat = null;
      this.#drawImage();
      this.#drawSide();
      toast("Each is judged alone now");
    } catch (error) {
      complain(error);
    }
  }

  #toggleLabel(label) {
    if (!this.#lease) return;
    if (!this.#labels.delete(label)) this.#labels.add(label);
    this.#drawReasons();
    announce(`${label} ${this.#labels.has(label) ? "on" : "off"}`);
  }

  #toggleBlur() {
    this.#blur = !this.#blur;
    prefer("blur", this.#blur);
    this.#redraw("Blur", this.#blur);
    if (this.#lease) this.#drawSide();
  }

  #toggleGrey() {
    this.#grey = !this.#grey;
    prefer("grey", this.#grey);
    applyGrey();
    this.#tools.grey.setAttribute("aria-pressed", String(this.#grey));
    announce(`Grey ${this.#grey ? "on" : "off"}`);
  }

  #toggleNative() {
    this.#heat = null;
    this.#native = !this.#native;
    this.#redraw("Native pixels", this.#native);
  }

  /** The heat map of this image; it is made while one looks at the image, and gone with the next. */
  async #toggleHeat() {
    const lease = this.#lease;
    const item = lease && this.#item;
    if (!item?.image) return;
    if (this.#blur) return void toast("The image is blurred: its heat map would show it");
    if (this.#heat) {
      this.#heat = null;
      announce("Heat map off");
      return this.#drawImage();
    }
    const heat = { map: null };
    this.#heat = heat;
    announce("Looking for damage");
    this.#drawImage();
    try {
      heat.map = await get(`/v1/items/${encodeURIComponent(item.item_id)}/heat-map`, { patience: HEAT_PATIENCE });
    } catch (error) {
      if (this.#heat !== heat) return;
      this.#heat = null;
      complain(error);
    }
    if (this.#lease !== lease || this.#item !== item || (heat.map && this.#heat !== heat)) return;
    if (heat.map) announce(heatWords(heat.map));
    this.#drawImage();
  }

  #redraw(what, on) {
    announce(`${what} ${on ? "on" : "off"}`);
    for (const [name, set] of [["blur", this.#blur], ["native", this.#native]]) this.#tools[name].setAttribute("aria-pressed", String(set));
    if (this.#lease) this.#drawImage();
  }

  #pan() {
    let from = null;
    this.#frame.addEventListener("pointerdown", (event) => {
      if (!this.#native) return;
      from = [event.clientX + this.#frame.scrollLeft, event.clientY + this.#frame.scrollTop];
      this.#frame.setPointerCapture(event.pointerId);
    });
    this.#frame.addEventListener("pointermove", (event) => { if (from) this.#frame.scrollTo(from[0] - event.clientX, from[1] - event.clientY); });
    for (const end of ["pointerup", "pointercancel"]) this.#frame.addEventListener(end, () => { from = null; });
  }

  // -- what the desk says --------------------------------------------------------------------------------------------

  #sent({ decision, answer }) {
    if (answer.resolution === "escalate" && decision.decision_id === this.#last?.decision.decision_id) toast("The votes tie, so a lead decides");
  }

  #refused({ decision, error }) {
    if (this.#last?.decision.decision_id === decision.decision_id) {
      this.#last = null;
      this.#dismissUndo();
    }
    this.#decided = Math.max(0, this.#decided - 1);
    this.#drawPace();
    const text = error.kind === "lease-lost" ? "Your last decision did not count: the lease had run out, and somebody else may have the image" : `Your last decision did not count: ${error.message}`;
    toast(text, { bad: true, seconds: 12 });
  }

  #lost(lease) {
    if (lease !== this.#lease) return;
    toast("This image is no longer yours: its lease ran out", { bad: true });
    this.#lease = null;
    this.#next();
  }
}
