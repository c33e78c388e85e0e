/** Local users: inviting, roles, removing. */

import { call, get, post } from "../parts/api.js";
import { button, h, replace } from "../parts/dom.js";
import { complain, toast } from "../parts/messages.js";

const ROLES = ["viewer", "reviewer", "lead", "admin"];
const MEAN = { viewer: "looks", reviewer: "decides", lead: "assigns, reopens, sees numbers", admin: "invites people" };

export async function show(main, context) {
  const rows = h("tbody");
  const role = h("select", { "aria-label": "Role of who is invited" }, ROLES.map((each) => h("option", { value: each, selected: each === "reviewer" }, `${each}: ${MEAN[each]}`)));
  const made = h("div", { role: "status" });
  const draw = async () => replace(rows, (await get("/v1/users")).map((user) => row(user, context.me, draw)));
  const invite = async () => {
    try {
      const { link } = await post("/v1/invitations", { role: role.value });
      const field = h("input", { value: link, readonly: true, "aria-label": "Invitation link", onfocus: () => field.select() });
      replace(made, h("div.notice.good", null, h("p", null, "Send this link to one person. It works once, for three days."), field));
      field.focus();
    } catch (error) {
      complain(error);
    }
  };
  replace(main, h("div.page", null, h("header", null, h("div", null, h("h1", null, "People"), h("p", null, "Users of this desk with a name and a password here."))),
    h("div.panel", null, h("div.grid-head", null, h("div.picker", null, role), button("Make an invitation", { kind: "primary", onclick: invite })), made),
    h("div.panel.scroll", null, h("table", null, h("thead", null, h("tr", null, ["Name", "Role", "Since", ""].map((title) => h("th", { scope: "col" }, title)))), rows))));
  await draw();
}

function row(user, me, draw) {
  const path = `/v1/users/${encodeURIComponent(user.name)}`;
  const attempt = async (run, done) => {
    try {
      await run();
      toast(done);
    } catch (error) {
      complain(error);
    }
    await draw().catch(complain);
  };
  const role = h("select", { "aria-label": `Role of ${user.name}`, onchange: () => attempt(() => call("PATCH", path, { role: role.value }), `${user.name} is a ${role.value} now`) }, ROLES.map((each) => h("option", { value: each }, each)));
  role.value = user.role;
  const remove = button("Remove", { kind: "danger", disabled: user.name === me.user, onclick: () => confirm(`Remove ${user.name}? What they decided stays.`) && attempt(() => call("DELETE", path), `${user.name} was removed`) });
  return h("tr", null, h("th", { scope: "row" }, user.name), h("td", null, role), h("td", null, new Date(user.created_at * 1000).toLocaleDateString()), h("td.number", null, remove));
}
