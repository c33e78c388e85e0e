/** Local users: inviting, roles, removing. */

import { call, get, post } from "../parts/api.js";
import { ask } from "../parts/dialogs.js";
import { button, h, replace } from "../parts/dom.js";
import { complain, toast } from "../parts/messages.js";
import { Newest } from "../parts/newest.js";

const ROLES = ["viewer", "reviewer", "lead", "admin"];
const MEAN = { viewer: "looks", reviewer: "decides", lead: "assigns, reopens, sees numbers", admin: "invites people" };

export async function show(main, context) {
  const rows = h("tbody");
  const role = h("select", { "aria-label": "Role of who is invited" }, ROLES.map((each) => h("option", { value: each, selected: each === "reviewer" }, `${each}: ${MEAN[each]}`)));
  const made = h("div", { role: "status" });
  const newest = new Newest();
  const draw = async () => {
    const found = await newest.run((signal) => get("/v1/users", { signal }));
    if (found) replace(rows, found.answer.map((user) => row(user, context.me, rows, draw)));
  };
  const invite = async () => {
    try {
      const { link } = await post("/v1/invitations", { role: role.value });
      const field = h("input", { value: link, readonly: true, "aria-label": "Invitation link", onfocus: () => field.select() });
      const copy = button("Copy", { iconName: "copy", onclick: async () => {
        await navigator.clipboard?.writeText(link).then(() => toast("Copied"), () => field.focus());
      } });
      replace(made, h("div.notice.good", null, h("p", null, "Send this link to one person. It works once, for three days."), h("div.link", null, field, copy)));
      field.focus();
    } catch (error) {
      complain(error);
    }
  };
  replace(main, h("div.page", null, h("header", null, h("div", null, h("h1", null, "People"), h("p", null, "Users with a name and a password at this desk."))),
    h("section.panel.invite", null, h("div", null, h("h2", null, "Invite somebody"), h("p.soft", null, "They choose their own name and password.")),
      h("div.picker", null, role, button("Make an invitation", { kind: "primary", onclick: invite })), made),
    h("div.panel.scroll", { tabindex: "0", role: "region", "aria-label": "Users" }, h("table", null, h("thead", null, h("tr", null, ["Name", "Role", "Since", "Remove"].map((title) => h("th", { scope: "col" }, title === "Remove" ? h("span.unseen", null, title) : title)))), rows))));
  await draw();
}

function row(user, me, rows, draw) {
  const path = `/v1/users/${encodeURIComponent(user.name)}`;
  const attempt = async (run, done) => {
    try {
      await run();
      toast(done);
    } catch (error) {
      complain(error);
    }
    await draw().catch(complain);
    // All rows were redrawn, so the focus is restored.
    (rows.querySelector(`[data-user="${CSS.escape(user.name)}"]`) ?? rows.closest("[role=region]"))?.focus();
  };
  // The arrow keys step through other roles, so a role changes only with the button.
  const change = button("Change", { "aria-label": `Change the role of ${user.name}`, hidden: true, onclick: () => attempt(() => call("PATCH", path, { role: role.value }), `${user.name} is a ${role.value} now`) });
  const role = h("select.person-role", { "aria-label": `Role of ${user.name}`, "data-user": user.name, onchange: () => { change.hidden = role.value === user.role; } }, ROLES.map((each) => h("option", { value: each }, each)));
  role.value = user.role;
  const remove = button("Remove", { kind: "danger", "aria-label": `Remove ${user.name}`, onclick: async () => {
    if (await ask(`Remove ${user.name}?`, ["They cannot sign in any more. Their decisions stay; items that are assigned to them go back to their queues."], { action: "Remove", danger: true })) await attempt(() => call("DELETE", path), `${user.name} was removed`);
  } });
  return h("tr", null, h("th", { scope: "row" }, user.name), h("td", null, h("div.picker", null, role, change)), h("td", null, new Date(user.created_at * 1000).toLocaleDateString()), h("td.number", null, user.name === me.user ? h("span.soft", null, "you") : remove));
}
