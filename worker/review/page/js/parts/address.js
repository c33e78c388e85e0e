/** The address of a view: `#/search?text=fox&status=open`. Every view can be reloaded, shared and revisited with Back. */

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

/** Writes the view's state to the address bar, as a history entry, without redrawing the view. */
export function remember(/** @type {string} */ hash) {
  if (hash !== location.hash) history.pushState(null, "", hash);
}

/** An item's full address, for sharing. */
export const itemLink = (/** @type {string} */ itemId) => `${location.origin}${location.pathname}${address("item", itemId)}`;

function decoded(/** @type {string} */ part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return ""; // the escape sequence is incomplete
  }
}
