/** The policy: its text, its thresholds, what a changed copy would have done with past verdicts, and saving it. */

import { call, get, post } from "../parts/api.js";
import { ask } from "../parts/dialogs.js";
import { button, h, replace } from "../parts/dom.js";
import { flips, moved } from "../parts/flips.js";
import { complain, toast } from "../parts/messages.js";
import { thresholds } from "../parts/thresholds.js";
import { ago, count, short } from "../parts/words.js";

const WAIT = 350;
/** An unsaved copy, and the digest of the text that it replaces. It is kept when the view changes. */
/** @type {{ user: string, text: string, replaces: string } | null} */
let draft = null;

export async function show(main, context) {
  const page = new PolicyPage(main, context.me.user);
  await page.begin();
  return () => page.leave();
}

class PolicyPage {
  #main; #user; #policy; #shadows; #timer = 0; #turn = 0;
  /** @type {any} */
  #replayed = null;
  #editor = h("textarea.code", { spellcheck: "false", "aria-label": "Policy, YAML", wrap: "off" });
  #sliders = h("div.constants"); #result = h("section.panel", { "aria-live": "polite", "aria-label": "Replay" });
  #state = h("p.soft"); #notice = h("div", { role: "status" }); #beside = h("section.panel", { "aria-label": "Shadow policies" });
  #reset = button("Back to the current one", { iconName: "undo", onclick: () => this.#edit(this.#policy.text) });
  #download = button("Download", { onclick: () => download(this.#editor.value) });
  #save = button("Save …", { kind: "primary", iconName: "check", onclick: () => this.#ask() });

  constructor(main, user) {
    this.#main = main;
    this.#user = user;
  }

  async begin() {
    [this.#policy, this.#shadows] = await Promise.all([get("/v1/policy"), get("/v1/policy/shadows")]);
    this.#editor.addEventListener("input", () => { this.#drawSliders(); this.#changed(); });
    const how = this.#policy.place
      ? `It is stored at ${this.#policy.place}. Workers apply what you save within seconds.`
      : "The settings of this desk do not say where the policy is stored, so it cannot be saved here: set policy to a file or an s3://bucket/key that all workers read. You can download a changed copy.";
    replace(this.#main, h("div.page", null,
      h("header", null, h("div", null, h("h1", null, "Policy"), this.#state), h("div.picker", null, this.#reset, this.#download, this.#save)),
      this.#notice,
      h("div.policy", null,
        h("div.column", null,
          h("section.panel", null, h("div", null, h("h2", null, "Thresholds"), h("p.soft", null, "Move one to see what it would have done.")), this.#sliders),
          h("section.panel", null, h("div", null, h("h2", null, "The whole policy"), h("p.soft", null, how)), this.#editor)),
        h("div.column", null, this.#result, this.#beside))));
    this.#drawFaults();
    this.#drawShadows();
    const kept = draft && draft.user === this.#user && draft.replaces === this.#policy.text_digest ? draft.text : null;
    draft = null;
    this.#edit(kept ?? this.#policy.text);
    addEventListener("beforeunload", this.#warn);
  }

  #warn = (event) => { if (!this.#same) event.preventDefault(); };

  leave() {
    removeEventListener("beforeunload", this.#warn);
    if (!this.#same) draft = { user: this.#user, text: this.#editor.value, replaces: this.#policy.text_digest };
    clearTimeout(this.#timer);
    this.#turn += 1;
  }

  get #same() {
    return this.#editor.value === this.#policy.text;
  }

  #edit(text) {
    this.#editor.value = text;
    this.#drawSliders();
    this.#changed();
  }

  #drawSliders() {
    replace(this.#sliders, thresholds(this.#editor, this.#policy.text, () => this.#changed()));
  }

  #changed() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#replay(), WAIT);
    this.#replayed = null;
    replace(this.#state, this.#same ? this.#described() : h("b", null, "A changed copy: it has no effect until it is saved."));
    this.#tell();
  }

  #described() {
    const { version, digest, shipped, saved_by: by, saved_at: at } = this.#policy;
    const whose = shipped ? "; the one that ships with Sluice" : by ? `; saved by ${by}, ${ago(at)}` : "";
    return version === null ? "The stored policy is not valid" : `Version ${version}, ${short(digest)}${whose}`;
  }

  #tell() {
    this.#reset.disabled = this.#download.disabled = this.#same;
    // It can be saved only after a replay; an invalid text cannot be replayed.
    this.#save.disabled = this.#same || !this.#policy.place || this.#replayed === null;
  }

  async #replay() {
    const mine = ++this.#turn;
    this.#result.setAttribute("aria-busy", "true");
    try {
      const replayed = await post("/v1/policy/replay", { text: this.#editor.value });
      if (mine !== this.#turn) return;
      this.#replayed = replayed;
      replace(this.#result, shown(replayed, this.#same));
      this.#tell();
    } catch (/** @type {any} */ error) {
      if (mine !== this.#turn) return;
      if (error.problem?.faults) replace(this.#result, h("h2", null, "This policy cannot be used"), faults(error.problem.faults.map((fault) => fault.what)));
      else complain(error);
    } finally {
      if (mine === this.#turn) this.#result.removeAttribute("aria-busy");
    }
  }

  #drawFaults() {
    replace(this.#notice, this.#policy.faults.length > 0 && h("section.panel", null, h("h2", null, "The stored policy is not valid"), h("p", null, "Running workers keep the last valid policy; a worker that starts now fails. Fix the policy and save it, or replace it with a valid one."), faults(this.#policy.faults)));
  }

  // -- saving --------------------------------------------------------------------------------------------------------

  async #ask() {
    const text = this.#editor.value;
    const elsewhere = moved(this.#replayed);
    const sure = await ask("Save this policy?", [
      `Workers apply it within seconds. Of the newest ${count(this.#replayed.total, "verdict")}, ${elsewhere ? `${count(elsewhere, "image")} would have been routed differently` : "none would have been routed differently"}.`,
      "It is written to the audit topic, with your name and the whole text.",
    ], { action: "Save", iconName: "check" });
    if (sure) await this.#store(text);
  }

  async #store(text) {
    this.#save.disabled = true;
    try {
      await call("PUT", "/v1/policy", { text, replaces: this.#policy.text_digest });
      await this.#reload();
      toast("Saved: workers apply it within seconds");
    } catch (/** @type {any} */ error) {
      if (error.kind === "policy-changed") this.#conflict(error.message);
      else complain(error);
    } finally {
      this.#tell();
    }
  }

  #conflict(message) {
    const mine = this.#editor.value;
    replace(this.#notice, h("section.panel", null, h("h2", null, "Not saved"), h("p", null, `${message[0].toUpperCase()}${message.slice(1)}.`),
      h("div.picker", null, button("Download mine", { onclick: () => download(mine) }), button("Load the saved one", { kind: "primary", onclick: () => this.#reload().catch(complain) }))));
    this.#notice.scrollIntoView({ block: "nearest" });
  }

  async #reload() {
    this.#policy = await get("/v1/policy");
    this.#drawFaults();
    this.#edit(this.#policy.text);
  }

  // -- shadows -------------------------------------------------------------------------------------------------------

  #drawShadows() {
    replace(this.#beside, h("div", null, h("h2", null, "Shadow policies"),
      h("p.soft", null, this.#shadows.length ? "Workers evaluate them for every image, in addition to the active policy. They decide nothing." : "None. Policies that the settings list under shadow_policies are evaluated for every image and decide nothing; this panel shows what they would have done.")),
    this.#shadows.map((shadow) => this.#shadow(shadow)));
  }

  #shadow(shadow) {
    const elsewhere = moved(shadow);
    const what = shadow.total === 0 ? "It was not evaluated for any of the latest verdicts." : `Evaluated for ${count(shadow.total, "verdict")}: ${elsewhere ? `${count(elsewhere, "image")} would have been routed differently` : "none would have been routed differently"}.`;
    return h("section.shadow", { "aria-label": `Shadow policy ${shadow.name}` },
      h("div.head", null, h("div", null, h("h3", null, shadow.name), h("p", null, what)),
        shadow.text !== null && button("Open in the editor", { onclick: () => { this.#edit(shadow.text); this.#editor.scrollIntoView({ block: "nearest" }); } })),
      shadow.trouble && h("p.notice.bad", null, shadow.trouble.split("\n")[0]),
      shadow.total > 0 && flips(shadow),
      shadow.changed > 0 && h("p.soft", null, `${count(shadow.changed, "image")} would have kept their route, with another priority or other labels.`));
  }
}

function shown(replayed, same) {
  const elsewhere = moved(replayed);
  const headline = replayed.total === 0 ? "There are no past verdicts yet" : elsewhere ? `${count(elsewhere, "image")} of ${replayed.replayed.toLocaleString("en")} would have been routed differently` : same ? "The current policy, replayed over past verdicts" : "Nothing would have been routed differently";
  return [
    h("div", null, h("h2", null, headline), h("p.soft", null, `Over the newest ${count(replayed.total, "verdict")}; the upper bar shows what happened, the lower one what would have happened.`)),
    replayed.failed > 0 && h("p.soft", null, `${count(replayed.failed, "image")} could not be scored; no policy changes that.`),
    replayed.undecided.map((each) => h("p.notice", null, `${count(each.count, "verdict")} cannot be replayed: rule ${each.rule} reads ${each.reads.join(", ")}, which verdicts do not carry.`)),
    replayed.changed > 0 && h("p.soft", null, `${count(replayed.changed, "image")} would have kept their route, with another priority or other labels.`),
    flips(replayed),
  ];
}

function faults(lines) {
  return h("ul.column", null, lines.map((line) => h("li.notice.bad", null, line)));
}

function download(text) {
  const link = h("a", { href: URL.createObjectURL(new Blob([text], { type: "application/yaml" })), download: "policy.yaml" });
  link.click();
  URL.revokeObjectURL(link.href);
  toast("Check it with: sluice policy check policy.yaml");
}
