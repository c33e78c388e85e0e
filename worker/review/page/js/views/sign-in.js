/** Signing in: name and password, the identity provider, or an invitation. */

import { call, get, useToken } from "../parts/api.js";
import { onReturn } from "../parts/away.js";
import { button, h, replace } from "../parts/dom.js";

/** Draws into `main`, with a `message` for the person who was signed in before; resolves with the person who signs in. */
export async function signIn(main, message) {
  const ways = await get("/v1/sign-in");
  useToken(ways.csrf);
  const token = new URLSearchParams(location.hash.slice(1)).get("invitation");
  if (token && ways.local) {
    // The token must not stay in the address bar, the history or a screenshot.
    history.replaceState(null, "", "/");
    return accept(main, token, ways);
  }
  return ask(main, ways, { message });
}

function frame(main, ...content) {
  replace(main, h("div.door", null, h("div.panel", null, h("div.brand", null, h("img", { src: "icon.svg", alt: "" }), "sluice"), content)));
}

function ask(main, ways, { message = null, failed = ways.failure } = {}) {
  return new Promise((done) => {
    const here = new AbortController();
    const resolve = (me) => { here.abort(); done(me); };
    const failure = h("p.notice.bad", { role: "alert", hidden: !failed }, failed);
    const submit = button("Sign in", { kind: "primary", type: "submit" });
    const name = h("input", { name: "name", "aria-describedby": message ? "door-message" : null, autocomplete: "username", required: true, maxlength: "256", autocapitalize: "none", spellcheck: "false" });
    const password = h("input", { name: "password", type: "password", autocomplete: "current-password", required: true, maxlength: "256" });
    const form = h("form", {
      onsubmit: (event) => {
        event.preventDefault();
        run(submit, failure, () => call("POST", "/v1/sign-in", { name: name.value, password: password.value }), resolve, () => password.select());
      },
    }, h("label.field", null, h("span", null, "Name"), name), h("label.field", null, h("span", null, "Password"), password), submit);
    frame(main, h("div", null, h("h1", null, "Review desk"), h("p.soft", null, "Sign in to review images.")), message && h("p.notice", { id: "door-message" }, message), failure,
      ways.local && form,
      ways.local && ways.oidc && h("div.or", null, "or"),
      ways.oidc && h("a.button", { href: "/v1/sign-in/oidc", class: ways.local ? "" : "primary" }, `Continue with ${ways.oidc}`));
    if (ways.local) name.focus();
    // All tabs of a browser share one session, so a sign-in in another tab counts here.
    onReturn(async () => {
      const me = submit.disabled ? null : await get("/v1/session").catch(() => null);
      if (!me || submit.disabled || here.signal.aborted) return;
      useToken(me.csrf, me);
      resolve(me);
    }, here.signal);
  });
}

async function accept(main, token, ways) {
  let role;
  try {
    ({ role } = await call("POST", "/v1/invitations/check", { token }));
  } catch (/** @type {any} */ error) {
    return ask(main, ways, { failed: error.message });
  }
  return new Promise((resolve) => {
    const failure = h("p.notice.bad", { role: "alert", hidden: true });
    const submit = button("Make my account", { kind: "primary", type: "submit" });
    const name = h("input", { name: "name", autocomplete: "username", required: true, maxlength: "64", autocapitalize: "none", spellcheck: "false", pattern: "[A-Za-z0-9][\\w.@+\\-]*", title: "letters, digits and . _ @ + -" });
    const password = h("input", { name: "password", type: "password", autocomplete: "new-password", required: true, minlength: "12", maxlength: "256" });
    const form = h("form", {
      onsubmit: (event) => {
        event.preventDefault();
        run(submit, failure, () => call("POST", "/v1/invitations/accept", { token, name: name.value, password: password.value }), resolve, () => name.focus());
      },
    }, h("label.field", null, h("span", null, "Name"), name), h("label.field", null, h("span", null, "Password ", h("small", null, "12 characters or more")), password), submit);
    frame(main, h("div", null, h("h1", null, "Welcome to the desk"), h("p.soft", null, `You are invited as ${role}. Choose a name and a password.`)), failure, form);
    name.focus();
  });
}

async function run(submit, failure, request, resolve, again) {
  submit.disabled = true;
  failure.hidden = true;
  try {
    const me = await request();
    useToken(me.csrf, me);
    resolve(me);
  } catch (/** @type {any} */ error) {
    failure.textContent = error.status ? error.message : "The desk does not answer. Try again in a moment.";
    failure.hidden = false;
    again();
  } finally {
    submit.disabled = false;
  }
}
