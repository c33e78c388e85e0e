/** The address of a view: `#/search?text=fox&status=open`. Whatever a view shows can be reloaded, sent and gone back to. */

/**
 * @typedef {{ view: string, parts: string[], params: URLSearchParams }} Address
 */

/** @returns {Address} */
export function parseAddress(/** @type {string} */ hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const [view = "", ...parts] = path.split("/").map(decoded).filter(Boolean);
  return { view, parts, params: new URLSearchParams(query) };
}

/**
 * `address("item", "a/b")` is `#/item/a%2Fb`; a last argument that is an object becomes the query, without its empty values.
 * @param {string} view
 * @param {...(string | Record<string, string | null | undefined>)} rest
 */
export function address(view, ...rest) {
  const last = rest.at(-1);
  const query = typeof last === "object" ? Object.entries(last).filter(([, value]) => value) : [];
  const parts = rest.filter((part) => typeof part === "string");
  const path = `#/${[view, ...parts].map(encodeURIComponent).join("/")}`;
  return query.length ? `${path}?${new URLSearchParams(/** @type {[string, string][]} */ (query))}` : path;
}

/** Puts what a view shows now into the address bar, as a step that Back undoes, without drawing the view again. */
export function remember(/** @type {string} */ hash) {
  if (hash !== location.hash) history.pushState(null, "", hash);
}

/** An item's address as a whole, to send to others. */
export const itemLink = (/** @type {string} */ itemId) => `${location.origin}${location.pathname}${address("item", itemId)}`;

function decoded(/** @type {string} */ part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return ""; // it was cut off
  }
}
