/** The top bar: view, queue, connection and the signed-in user. */

import { call, get, isReachable } from "./api.js";
import { h, icon, replace } from "./dom.js";
import { showSheet } from "./key-sheet.js";
import { setKeysEverywhere } from "./keys.js";
import { onQuietDesk } from "./live.js";
import { announce, complain } from "./messages.js";
import { switchTheme } from "./preferences.js";
import { roleIncludes } from "./roles.js";

/** Name, label, required role and key of each view. */
const PLACES = [
  ["review", "Review", "reviewer", "Shift+r"],
  ["grid", "Grid", "reviewer", "Shift+g"],
  ["mine", "My decisions", "reviewer", "Shift+m"],
  ["queues", "Queues", "viewer", "Shift+q"],
  ["search", "Search", "viewer", "/"],
  ["dashboard", "Dashboard", "lead", "Shift+d"],
  ["policy", "Policy", "lead", "Shift+p"],
  ["dead", "Dead letters", "lead", "Shift+e"],
  ["webhooks", "Webhooks", "lead", "Shift+w"],
  ["people", "People", "admin", "Shift+l"],
];

/** Minimum milliseconds between requests: with fifty reviewers there are many events, and each would cause a request. */
const QUEUES_EVERY = 3000;

export class Bar {
  #element = /** @type {HTMLElement} */ (document.getElementById("bar"));
  #links = new Map();
  #select = h("select", { "aria-label": "Queue", "data-keys": "" });
  #picker = h("div.picker", null, this.#select);
  #live = h("span.live");
  #context;
  /** @type {() => void} */
  #forget = () => {};
  /** Requests for the queues that were begun, and the newest of those whose answer is shown. */
  #asked = 0;
  #answered = 0;
  /** @type {import("../views/review/empty-queue.js").Queue[]} */
  queues = [];

  constructor(context) {
    this.#context = context;
    const { me } = context;
    const places = PLACES.filter(([name, , role]) => roleIncludes(me.role, role) && (name !== "webhooks" || context.about.has_webhooks));
    for (const [name, label] of places) this.#links.set(name, h("a", { href: `#/${name}` }, label));
    setKeysEverywhere([
      ...(roleIncludes(me.role, "reviewer") ? [{ key: "u", id: "undo", label: `Undo, for ${context.about.undo_seconds} seconds`, run: () => void context.actions.undo() }] : []),
      ...places.map(([name, label, , key]) => ({ key, id: name, label, run: () => { location.hash = `#/${name}`; } })),
      { key: "Shift+t", id: "theme", label: "Light or dark", run: () => announce(`${switchTheme()} theme`) },
    ]);
    let byPointer = false;
    this.#select.addEventListener("pointerdown", () => { byPointer = true; });
    this.#select.addEventListener("keydown", () => { byPointer = false; });
    this.#select.addEventListener("change", () => {
      context.setQueue(this.#select.value);
      // The focus may move to the next queue by keyboard; letters still act on the image.
      if (byPointer) document.getElementById("main")?.focus();
    });
    const shown = me.user.replace(/^oidc:/, "");
    replace(this.#element,
      h("a.brand", { href: "#/", "aria-label": "Sluice" }, h("img", { src: "icon.svg", alt: "" }), h("span", null, "sluice")),
      h("nav", { "aria-label": "Places" }, ...this.#links.values()),
      h("span.space"), this.#picker, this.#live,
      h("button.button.plain.icon", { type: "button", "aria-label": "Light or dark", title: "Light or dark (Shift T)", onclick: () => switchTheme() }, icon("moon")),
      h("button.button.plain.icon", { type: "button", "aria-label": "Keyboard", title: "Keyboard (?)", onclick: showSheet }, icon("help")),
      h("span.who", { title: `${shown}, ${me.role}` }, h("span.avatar", { "aria-hidden": "true" }, shown.slice(0, 2)), h("span", null, h("b", null, shown), h("small", null, me.role))),
      h("button.button.plain.icon", { type: "button", "aria-label": "Sign out", title: "Sign out", onclick: () => this.#signOut() }, icon("out")));
    this.#element.hidden = false;
    this.live(isReachable());
    this.#forget = onQuietDesk(() => this.refresh().catch(() => {}), QUEUES_EVERY);
  }

  /** Shows which view it is, and returns its name. */
  mark(view) {
    for (const [name, link] of this.#links) {
      if (name === view) {
        link.setAttribute("aria-current", "page");
        // Where the bar is too narrow for all places, the row scrolls.
        link.scrollIntoView({ block: "nearest", inline: "center" });
      }
      else link.removeAttribute("aria-current");
    }
    this.#picker.hidden = view !== "review" && view !== "grid";
    const place = this.#links.get(view)?.textContent ?? (view === "item" ? "Item" : "Review desk");
    document.title = `${place} · Sluice`;
    return place;
  }

  live(reachable) {
    this.#live.textContent = reachable ? "live" : "no connection";
    this.#live.classList.toggle("lost", !reachable);
  }

  /** Asks for the queues; chooses one when none is chosen yet. An answer that a newer one has overtaken changes nothing. */
  async refresh() {
    const mine = ++this.#asked;
    const queues = await get("/v1/queues");
    if (mine < this.#answered) return this.queues;
    this.#answered = mine;
    this.queues = queues;
    const known = this.queues.some((queue) => queue.name === this.#context.queue);
    const names = known || !this.#context.queue ? this.queues : [...this.queues, { name: this.#context.queue, open: 0 }];
    if (!this.#context.queue && names.length) this.#context.queue = [...names].sort((a, b) => b.open - a.open)[0].name;
    if (document.activeElement !== this.#select) {
      replace(this.#select, names.map((queue) => h("option", { value: queue.name }, `${queue.name} · ${queue.open}`)));
      this.#select.value = this.#context.queue ?? "";
    }
    this.#select.hidden = !names.length;
    return this.queues;
  }

  hide() {
    this.#forget();
    this.#element.hidden = true;
  }

  async #signOut() {
    try {
      await this.#context.outbox.settled();
      await call("DELETE", "/v1/session");
    } catch (/** @type {any} */ error) {
      if (error.status !== 401) return complain(error);
    }
    document.dispatchEvent(new CustomEvent("signed-out", { detail: { wanted: true } }));
  }
}
