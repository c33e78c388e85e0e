/** The page of one item: the image, its details and the actions on it. */

import { Animation, isAnimation } from "../parts/animation.js";
import { get, post } from "../parts/api.js";
import { address, itemLink } from "../parts/address.js";
import { ask } from "../parts/dialogs.js";
import { button, empty, h, replace } from "../parts/dom.js";
import { itemPanel } from "../parts/item-panel.js";
import { setKeys } from "../parts/keys.js";
import { onQuietDesk } from "../parts/live.js";
import { announce, complain, toast } from "../parts/messages.js";
import { Newest } from "../parts/newest.js";
import { described, large, missing, picture } from "../parts/pictures.js";
import { prefer, preference } from "../parts/preferences.js";
import { roleIncludes } from "../parts/roles.js";

/** Milliseconds between checks for changes by others. */
const LOOK_EVERY = 2000;

/** The address is `#/item/ID`. */
export async function show(main, context, [id]) {
  if (!id) return void replace(main, empty("image", "No item", "The address names no item."));
  const view = new ItemView(main, context, id);
  await view.load();
  const forget = onQuietDesk(() => view.load().catch(() => {}), LOOK_EVERY);
  return () => { forget(); view.leave(); };
}

class ItemView {
  #main;
  #context;
  #path;
  #id;
  /** @type {any} The item as it was loaded last. */
  #item = null;
  #drawn = "";
  /** @type {Animation | null} What plays in place of the image. */
  #animation = null;
  #playButton = button("Play", { iconName: "play", key: "M", "aria-pressed": "false", onclick: () => this.#togglePlay() });
  newest = new Newest();

  constructor(main, context, id) {
    this.#main = main;
    this.#context = context;
    this.#id = id;
    this.#path = `/v1/items/${encodeURIComponent(id)}`;
  }

  leave() {
    this.newest.cancel();
    this.#stop();
  }

  async load() {
    let found;
    try {
      found = await this.newest.run((signal) => get(this.#path, { signal }));
    } catch (/** @type {any} */ error) {
      if (error.status !== 404) throw error;
      return void replace(this.#main, empty("broken", "There is no such item", `The desk knows no item “${this.#id}”: it does not exist, or it was settled so long ago that the desk no longer keeps it.`, h("a.button", { href: address("search") }, "Search")));
    }
    if (!found) return;
    this.#item = found.answer;
    // Links to images differ in each answer; they alone do not cause a redraw.
    const { image, ...rest } = this.#item;
    const now = JSON.stringify([rest, image === null]);
    if (now === this.#drawn) return;
    this.#drawn = now;
    this.#draw();
  }

  #draw() {
    const item = this.#item;
    const shot = h("div.shot");
    const none = (title, detail) => replace(shot, missing(title, detail));
    if (item.image && this.#animation?.isLoaded) shot.append(this.#animation.element);
    else if (item.image) shot.append(picture(large(item.image), described(item), { onmissing: none }));
    else none("There is no image", item.failure?.message ?? "");
    const blur = () => { this.#stop(); prefer("blur", !preference("blur", false)); this.#draw(); };
    const copy = async () => {
      const link = itemLink(item.item_id);
      await (navigator.clipboard?.writeText(link) ?? Promise.reject()).then(() => toast("Link copied"), () => ask("Link to this item", [], { field: "Link", value: link, action: "Done" }));
    };
    replace(this.#main, h("div.page.item-page", null,
      h("header", null, h("div", null, h("h1", null, item.event_id), h("p", null, `${item.status} in “${item.queue}”`)),
        h("div.picker", null, this.#mayDecide && button("Decide now", { kind: "primary", iconName: "check", onclick: () => this.#decideNow() }),
          isAnimation(item) && this.#playButton,
          button("Blur", { iconName: "blur", key: "B", "aria-pressed": String(preference("blur", false)), onclick: blur }),
          button("Copy link", { iconName: "copy", onclick: copy }))),
      this.#leadActions(),
      h("div.opened", null, shot, h("div.about.panel", null, h("h2.unseen", null, "About this item"), itemPanel(item)))));
    setKeys(this.#main, [{ title: "Item", keys: [
      { key: "b", id: "blur", label: "Blur on and off", run: blur },
      { key: "m", id: "play", label: "Play and pause an animation", run: () => this.#togglePlay() },
      { key: "d", label: "Decide now", run: () => { if (this.#mayDecide) this.#decideNow(); } },
      { key: "l", label: "Copy the link to this item", run: copy },
    ] }]);
  }

  /** Plays and pauses an animation. */
  async #togglePlay() {
    if (!isAnimation(this.#item)) return;
    if (preference("blur", false)) return void toast("The image is blurred: its frames would show it");
    if (this.#animation) return void (this.#animation.isLoaded && this.#animation.toggle());
    const animation = new Animation(this.#item, () => {
      this.#playButton.setAttribute("aria-pressed", String(animation.isPlaying));
      announce(animation.isPlaying ? "Playing" : "Paused");
    });
    this.#animation = animation;
    try {
      await animation.load();
    } catch (/** @type {any} */ error) {
      if (this.#animation === animation) this.#stop();
      return void toast(`The frames cannot be shown: ${error.message}`, { bad: true });
    }
    if (this.#animation !== animation) return animation.leave();
    this.#draw();
    animation.play();
  }

  #stop() {
    this.#animation?.leave();
    this.#animation = null;
    this.#playButton.setAttribute("aria-pressed", "false");
  }

  /** Leads decide any waiting item, reviewers those that are assigned to them or that they skipped. The desk checks this. */
  get #mayDecide() {
    const { me } = this.#context;
    const { status, assignee, history } = this.#item;
    if (roleIncludes(me.role, "lead")) return ["open", "escalated", "gold"].includes(status) && (!assignee || assignee === me.user);
    if (me.role !== "reviewer" || status !== "open") return false;
    const own = history.findLast(({ by }) => by === me.user);
    return assignee === me.user || own?.outcome === "skip";
  }

  async #decideNow() {
    try {
      const lease = await post(`${this.#path}/take`);
      const special = this.#item.status === "escalated" ? ["escalated"] : [];
      this.#context.actions.handOver([lease], address("review", lease.queue, ...special));
    } catch (error) {
      complain(error);
    }
  }

  // -- actions of leads -------------------------------------------------------------------------------------------------

  #leadActions() {
    if (!roleIncludes(this.#context.me.role, "lead")) return null;
    const { status } = this.#item;
    const settled = status === "approved" || status === "rejected";
    return h("div.why", { role: "group", "aria-label": "For leads" },
      status !== "open" && this.#act("Reopen", (note) => post(`${this.#path}/reopen`, { note }), "reopened"),
      status === "open" && this.#act("Hold", (note) => post(`${this.#path}/hold`, { note }), "put on hold"),
      status === "open" && this.#act("Escalate", (note) => post(`${this.#path}/escalate`, { note }), "escalated"),
      !settled && button("Assign …", { onclick: () => this.#assign() }),
      status !== "gold" && button("Test item: approve", { onclick: () => this.#do(() => post(`${this.#path}/gold`, { answer: "approve" }), "The item tests reviewers now") }),
      status !== "gold" && button("Test item: reject", { onclick: () => this.#do(() => post(`${this.#path}/gold`, { answer: "reject" }), "The item tests reviewers now") }));
  }

  /** An action that can have a note. */
  #act(label, send, done) {
    return button(`${label} …`, { onclick: async () => {
      const note = await ask(`${label} this item`, [], { field: "A note for others", action: label });
      if (note !== null) await this.#do(() => send(note.trim() || null), `The item is ${done}`);
    } });
  }

  async #assign() {
    const name = await ask("Assign this item", ["Only this person gets it. Leave empty to remove the assignment."], { field: "Name", value: this.#item.assignee ?? "", action: "Assign" });
    if (name !== null) await this.#do(() => post(`${this.#path}/assign`, { assignee: name.trim() || null }), name.trim() ? `The item is assigned to ${name.trim()}` : "The item is not assigned any more");
  }

  async #do(send, done) {
    try {
      await send();
      toast(done);
      await this.load();
    } catch (error) {
      complain(error);
    }
  }
}
