/** Many images at once: choose, then decide for all of them. */

import { post, Unreachable, watchConnection } from "../parts/api.js";
import { watchAway } from "../parts/away.js";
import { showItem } from "../parts/dialogs.js";
import { button, empty, h, icon, replace } from "../parts/dom.js";
import { waitForQueue } from "../parts/first-queue.js";
import { setKeys } from "../parts/keys.js";
import { onQuietDesk } from "../parts/live.js";
import { announce, complain, explained, toast } from "../parts/messages.js";
import { picture, small } from "../parts/pictures.js";
import { applyGrey, prefer, preference } from "../parts/preferences.js";
import { held, LOOK_AGAIN, Shelf } from "../parts/shelf.js";
import { count, grade } from "../parts/words.js";

const TILES = 24;
const DONE = { approve: "approved", reject: "rejected" };

export async function show(main, context, queue) {
  await context.bar.refresh();
  const name = queue ?? context.queue;
  if (!name) return waitForQueue(main, context, "grid");
  const grid = new Grid(main, context, name);
  await grid.fill();
  return () => grid.leave();
}

class Grid {
  #main; #context; #shelf; #busy = false; #last = null; #dismissUndo = () => {};
  #chosen = new Set(); #tiles = new Map(); #anchor = null; #labels = new Set(); #listeners = [];
  #blur = preference("blur", false); #grey = preference("grey", false);
  #list = h("div.tiles", { role: "listbox", "aria-multiselectable": "true", "aria-label": "Images to review" });
  #nothing = h("div.column", { hidden: true }); #status = h("p", { role: "status" }); #buttons; #reasons; #blurButton;

  constructor(main, context, queue) {
    this.#main = main;
    this.#context = context;
    this.#shelf = new Shelf(queue, TILES, context.about.lease_seconds);
    this.#shelf.addEventListener("lost", ({ detail }) => {
      this.#drop(detail.lease.item_id);
      toast("An image is no longer yours: its lease ran out", { bad: true });
    });
    // Where nothing waits new images appear by themselves; a grid that is being worked through stays as it is.
    const again = () => { if (!this.#tiles.size) this.fill(); };
    const timer = setInterval(again, LOOK_AGAIN);
    this.#listeners.push(() => clearInterval(timer));
    this.#listeners.push(onQuietDesk(again), watchConnection((reachable) => { if (reachable) this.#shelf.check().then(again); }));
    this.#listeners.push(watchAway(this.#main, () => this.leave()));
    const refused = ({ detail }) => toast(`A decision did not count: ${detail.error.message}`, { bad: true, seconds: 12 });
    const stands = ({ detail }) => toast(`A decision stands: ${detail.error.message}`, { bad: true, seconds: 12 });
    for (const [kind, listener] of [["refused", refused], ["stands", stands], ["undone", (event) => this.#undone(event)]]) {
      context.outbox.addEventListener(kind, listener);
      this.#listeners.push(() => context.outbox.removeEventListener(kind, listener));
    }
    this.#buttons = [
      button("Approve", { key: "A", iconName: "check", kind: "approve", onclick: () => this.#decide("approve") }),
      button("Reject", { key: "R", iconName: "cross", kind: "reject", onclick: () => this.#decide("reject") }),
    ];
    this.#blurButton = button("Blur", { key: "B", iconName: "blur", "aria-pressed": String(this.#blur), onclick: () => this.#toggleBlur() });
    this.#reasons = context.about.labels.map((label, index) => h("button.button", { type: "button", "aria-pressed": "false", onclick: () => this.#toggleLabel(label) }, h("kbd", { "aria-hidden": "true" }, String(index + 1)), label));
    replace(main, h("h1.unseen", null, `Grid: ${queue}`), h("div.grid-page", null,
      h("div.grid-head", null, this.#status, h("span.space"), button("Choose all", { key: "C", onclick: () => this.#chooseAll() }), this.#blurButton),
      this.#list, this.#nothing,
      h("div.actions", { role: "group", "aria-label": "Decide" }, this.#buttons, h("div.reasons", { role: "group", "aria-label": "Reasons for the next decision" }, this.#reasons), h("span.space"), button("Fetch more", { key: "F", onclick: () => this.fill() }))));
    setKeys(this.#main, [
      { title: "Choose", keys: [
        { key: "ArrowRight", label: "Move", also: ["ArrowLeft", "ArrowUp", "ArrowDown", "Home", "End"], repeats: true, run: (event) => this.#move(event.key) },
        { key: "Shift+ArrowRight", label: "Move and choose", shown: "Shift+arrow", also: ["Shift+ArrowLeft", "Shift+ArrowUp", "Shift+ArrowDown"], repeats: true, run: (event) => this.#extend(event.key) },
        { key: " ", label: "Choose, or not", also: ["x"], run: () => this.#toggle(this.#focused()) },
        { key: "c", label: "Choose all or none", run: () => this.#chooseAll() },
        { key: "Escape", label: "Choose none", run: () => this.#choose([]) },
      ] },
      { title: "Decide for the chosen, or the one in focus", keys: [
        { key: "a", label: "Approve", run: () => this.#decide("approve") },
        { key: "r", label: "Reject", run: () => this.#decide("reject") },
        { key: "u", label: "Undo", run: () => this.#undo() },
        { key: "f", label: "Fetch more", run: () => this.fill() },
      ] },
      { title: "Say why, for the next decision", keys: context.about.labels.map((label, index) => ({ key: String(index + 1), label, run: () => this.#toggleLabel(label) })) },
      { title: "Look", keys: [
        { key: "Enter", label: "Look closely", run: () => this.#look(this.#focused()) },
        { key: "b", label: "Blur on and off", run: () => this.#toggleBlur() },
        { key: "g", label: "Grey on and off", run: () => this.#toggleGrey() },
      ] },
    ]);
  }

  async fill() {
    let failed = null;
    try {
      await this.#shelf.fill();
    } catch (error) {
      failed = error;
      if (this.#tiles.size) complain(error);
    }
    this.#draw(failed);
  }

  leave() {
    this.#listeners.forEach((forget) => forget());
    this.#dismissUndo();
    return this.#shelf.close();
  }

  #draw(failed = null) {
    const leases = this.#shelf.leases;
    const order = leases.map((lease) => lease.item_id);
    for (const id of this.#tiles.keys()) if (!order.includes(id)) this.#drop(id);
    for (const lease of leases) if (!this.#tiles.has(lease.item_id)) this.#tiles.set(lease.item_id, this.#tile(lease));
    this.#list.hidden = !order.length;
    this.#nothing.hidden = order.length > 0;
    replace(this.#list, order.map((id) => this.#tiles.get(id)));
    if (!order.length) {
      replace(this.#nothing, failed ? empty("offline", "Nothing could be fetched", explained(failed), button("Try again", { onclick: () => this.fill() }))
        : empty("check", "All clear", `Nothing waits for you in “${this.#shelf.queue}”. New images appear here by themselves.`, h("a.button", { href: "#/queues" }, "See the other queues")));
    } else if (!this.#begun || document.activeElement === document.body) {
      this.#begun = true;
      this.#focus(this.#tiles.get(order[Math.min(this.#at, order.length - 1)]));
    }
    this.#tell();
  }

  #tile(lease) {
    const item = lease.items[0];
    const quality = item.scores?.quality;
    const view = h("span.picture");
    const tile = h("button.tile", { type: "button", role: "option", "aria-selected": "false", tabindex: "-1", "data-item": lease.item_id,
      onclick: (event) => { event.shiftKey ? this.#range(tile) : this.#toggle(tile); }, onfocus: () => this.#rove(tile) },
      view,
      h("span.check", { "aria-hidden": "true" }, icon("check")),
      h("span.text", null,
        h("span.top", null, h("b", null, h("span.unseen", null, "quality "), quality ? quality.toFixed(2) : "–"), h("span.badge.review", null, quality ? grade(quality) : item.failure?.reason.replaceAll("_", " ") ?? item.rule)),
        h("span.line", { dir: "auto" }, item.prompt ?? item.generator ?? item.place ?? ""),
        lease.items.length > 1 && h("span.line", null, `${count(lease.items.length - 1, "near duplicate")} with it`)));
    this.#fillPicture(view, item);
    return tile;
  }

  #fillPicture(view, item) {
    const none = () => replace(view, icon("broken"));
    if (!item.image) return none();
    return replace(view, picture(small(item.image), "", { onmissing: none }));
  }

  #drop(id) {
    this.#tiles.get(id)?.remove();
    this.#tiles.delete(id);
    this.#chosen.delete(id);
    this.#tell();
  }

  // -- choosing ------------------------------------------------------------------------------------------------------

  #focused() {
    return document.activeElement?.closest?.(".tile") ?? this.#list.children[Math.min(this.#at, this.#list.children.length - 1)];
  }

  #focus(tile) {
    if (tile?.classList.contains("tile")) tile.focus({ preventScroll: false });
  }

  /** Where in the row of tiles one was, so that deciding does not send one back to its beginning. */
  #at = 0;
  #begun = false;

  #rove(tile) {
    this.#at = [...this.#list.children].indexOf(tile);
    for (const each of this.#tiles.values()) each.tabIndex = each === tile ? 0 : -1;
  }

  #move(key) {
    const tiles = [...this.#list.querySelectorAll(".tile")];
    const at = tiles.indexOf(this.#focused());
    const top = tiles[0]?.offsetTop;
    const columns = tiles.filter((tile) => tile.offsetTop === top).length || 1;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -tiles.length, End: tiles.length }[key];
    this.#focus(tiles[Math.min(tiles.length - 1, Math.max(0, at + step))]);
  }

  #extend(key) {
    const from = this.#focused();
    if (!from) return;
    if (!this.#chosen.has(from.dataset.item)) this.#anchor = from;
    this.#move(key);
    this.#range(this.#focused());
  }

  #look(tile) {
    const lease = this.#shelf.leases.find((each) => each.item_id === tile?.dataset.item);
    if (lease) showItem(lease.items[0]).addEventListener("close", () => this.#focus(tile));
  }

  #toggleLabel(label) {
    if (!this.#labels.delete(label)) this.#labels.add(label);
    this.#drawReasons();
    announce(`${label} ${this.#labels.has(label) ? "on" : "off"}`);
  }

  #drawReasons() {
    this.#context.about.labels.forEach((label, index) => this.#reasons[index].setAttribute("aria-pressed", String(this.#labels.has(label))));
  }

  #toggle(tile) {
    if (!tile) return;
    const id = tile.dataset.item;
    const next = new Set(this.#chosen);
    if (!next.delete(id)) next.add(id);
    this.#anchor = tile;
    this.#choose(next);
    this.#focus(tile);
  }

  #range(tile) {
    const tiles = [...this.#list.querySelectorAll(".tile")];
    const [from, to] = [tiles.indexOf(this.#anchor ?? tile), tiles.indexOf(tile)].sort((a, b) => a - b);
    this.#choose([...this.#chosen, ...tiles.slice(Math.max(0, from), to + 1).map((each) => each.dataset.item)]);
  }

  #chooseAll() {
    this.#choose(this.#chosen.size === this.#tiles.size ? [] : this.#tiles.keys());
  }

  #choose(ids) {
    this.#chosen = new Set(ids);
    for (const [id, tile] of this.#tiles) tile.setAttribute("aria-selected", String(this.#chosen.has(id)));
    this.#tell();
  }

  #tell() {
    replace(this.#status, h("b", null, count(this.#tiles.size, "image")), ` in “${this.#shelf.queue}”`, this.#chosen.size > 0 && ` · ${this.#chosen.size} chosen`);
    for (const each of this.#buttons) each.disabled = this.#busy || !this.#tiles.size;
  }

  // -- deciding ------------------------------------------------------------------------------------------------------

  async #decide(outcome) {
    const focused = this.#focused()?.dataset.item;
    const ids = this.#chosen.size ? [...this.#chosen] : [focused].filter(Boolean);
    const leases = this.#shelf.leases.filter((lease) => ids.includes(lease.item_id));
    if (!leases.length || this.#busy) return;
    this.#busy = true;
    this.#tell();
    // A decision that came, though its answer was lost, counts once: it is sent again under the same id.
    const decisions = leases.map((lease) => ({ decision_id: crypto.randomUUID(), ...held(lease), outcome, labels: [...this.#labels] }));
    this.#labels.clear();
    this.#drawReasons();
    try {
      const answers = await post("/v1/decisions/bulk", { decisions });
      const refused = answers.filter((answer) => answer.refused);
      for (const { item_id: id } of answers) {
        this.#shelf.remove(id);
        this.#drop(id);
      }
      const good = answers.filter((answer) => answer.decided);
      const images = good.reduce((sum, answer) => sum + answer.decided.item_ids.length, 0);
      this.#remember(good.map((answer) => answer.decided.decision_id), decisions, leases);
      if (good.length) this.#offerUndo(`${count(images, "image")} ${DONE[outcome]}`);
      if (refused.length) toast(`${count(refused.length, "image")} did not count: ${refused[0].refused.detail}`, { bad: true, seconds: 12 });
      announce(`${good.length} ${DONE[outcome]}`);
    } catch (error) {
      if (error instanceof Unreachable) this.#keep(decisions, leases, outcome);
      else complain(error);
    } finally {
      this.#busy = false;
    }
    if (this.#tiles.size < TILES / 2) await this.fill();
    else this.#draw();
  }

  /** The desk does not answer: what was decided waits, and is sent one by one when it is back. */
  #keep(decisions, leases, outcome) {
    for (const decision of decisions) {
      this.#shelf.remove(decision.item_id);
      this.#drop(decision.item_id);
      this.#context.outbox.add(decision, { unheard: true });
    }
    this.#remember(decisions.map((decision) => decision.decision_id), decisions, leases);
    this.#offerUndo(`${count(decisions.length, "image")} ${DONE[outcome]}, to be sent`);
  }

  /** What can be taken back: the decisions of these `ids`, each with its lease. */
  #remember(ids, decisions, leases) {
    const lease = new Map(decisions.map((decision, index) => [decision.decision_id, leases[index]]));
    this.#last = { at: performance.now(), taken: ids.map((id) => [id, lease.get(id)]) };
  }

  #offerUndo(text) {
    this.#dismissUndo();
    this.#dismissUndo = toast(text, { seconds: this.#context.about.undo_seconds, timer: true, action: { label: "Undo", key: "U", run: () => this.#undo() } });
  }

  async #undo() {
    const last = this.#last;
    if (!last || performance.now() - last.at > 1000 * this.#context.about.undo_seconds) return toast("There is nothing to undo");
    this.#last = null;
    this.#dismissUndo();
    const taken = await Promise.allSettled(last.taken.map(([id, lease]) => this.#context.outbox.takeBack(id, lease)));
    for (const { reason } of taken) if (reason) complain(reason);
    const leases = taken.map(({ value }) => value).filter(Boolean);
    for (const lease of leases.reverse()) this.#shelf.putFirst(lease);
    this.#draw();
    const late = taken.filter(({ value }) => value === null).length;
    if (late) toast(`${count(late, "decision")} will be taken back as soon as the desk answers`);
    if (leases.length) toast(`${count(leases.length, "decision")} taken back`);
  }

  /** The desk has answered late. */
  #undone(event) {
    const { lease } = event.detail;
    if (lease.queue !== this.#shelf.queue) return;
    event.preventDefault();
    this.#shelf.putFirst(lease);
    this.#draw();
    toast("Taken back");
  }

  #toggleBlur() {
    this.#blur = !this.#blur;
    prefer("blur", this.#blur);
    this.#blurButton.setAttribute("aria-pressed", String(this.#blur));
    announce(`Blur ${this.#blur ? "on" : "off"}`);
    for (const lease of this.#shelf.leases) this.#fillPicture(this.#tiles.get(lease.item_id).querySelector(".picture"), lease.items[0]);
  }

  #toggleGrey() {
    this.#grey = !this.#grey;
    prefer("grey", this.#grey);
    applyGrey();
    announce(`Grey ${this.#grey ? "on" : "off"}`);
  }
}
