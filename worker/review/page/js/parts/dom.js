/** Builds elements without markup in text, so that nothing from outside is ever parsed as HTML. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * `h("button.primary", { onclick, "aria-label": … }, "text", element, …)`. Properties that are null, undefined or false
 * are left out; `class` adds to the classes of the tag; `style` is an object of custom or plain CSS properties.
 * @param {string} tag
 * @param {Record<string, any> | null} [properties]
 * @param {...any} children
 * @returns {any} an element of the tag's own type
 */
export function h(tag, properties, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name || "div");
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "class") element.classList.add(...value.split(" ").filter(Boolean));
    else if (key === "style") for (const [rule, set] of Object.entries(value)) element.style.setProperty(rule, set);
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key in element && !key.includes("-") && typeof value !== "string") element[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  append(element, children);
  return element;
}

/** @type {(element: Element, children: any[]) => void} */
export function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child);
  }
}

/** @type {<T extends Element>(element: T, ...children: any[]) => T} */
export function replace(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

/** @type {Record<string, string>} Paths of 24 by 24 pixels, drawn for this page. */
const ICONS = {
  check: "M5 12.5l4.5 4.5L19 7.5",
  cross: "M6.5 6.5l11 11M17.5 6.5l-11 11",
  up: "M12 19V6M6 11.5L12 5.5l6 6",
  pause: "M9 6v12M15 6v12",
  play: "M8 5.5l10 6.5-10 6.5z",
  skip: "M6 6l7 6-7 6zM17.5 6v12",
  undo: "M9 7L4.5 11.5 9 16M5 11.5h9a5 5 0 010 10h-2",
  blur: "M12 4s6 6.2 6 10.2A6 6 0 016 14.2C6 10.2 12 4 12 4z",
  grey: "M12 4a8 8 0 100 16zM12 4a8 8 0 010 16",
  zoom: "M10.5 5a5.5 5.5 0 100 11 5.5 5.5 0 000-11zM14.7 14.7L20 20M8 10.5h5M10.5 8v5",
  heat: "M12 3.500c1 3.500 5.500 5.500 5.500 10a5.500 5.500 0 01-11 0c0-2 1-3.500 2-4.500.3 1.500 1 2.300 2 2.500-.5-3 .3-6 1.500-8z",
  sun: "M12 8a4 4 0 100 8 4 4 0 000-8zM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M18.7 5.3l-1.4 1.4M6.7 17.3l-1.4 1.4",
  moon: "M19.5 14.5A8 8 0 019.5 4.5a8 8 0 1010 10z",
  help: "M9 9.2a3 3 0 115 2.2c-1 .9-2 1.4-2 2.9M12 17.8v.2",
  out: "M14 5H6v14h8M11 12h9M16.5 8.5L20 12l-3.5 3.5",
  image: "M4 5.5h16v13H4zM4 15.5l4.5-4.5 4 4 2.5-2.5 5 5M15.5 9.5v.1",
  broken: "M4 5.5h16v13H4zM4 15l4-4 3 3M13 5.5l-2 4 3 3-2 3 1 3",
  offline: "M5 5l14 14M8.500 16.500a5 5 0 016.500-.4M4 11.500a11 11 0 014-2.600M12 8.500a11 11 0 018 3.500M12 20v.1",
  copy: "M9 9h10v10H9zM5 15V5h10",
  grid: "M5 5h6v6H5zM13 5h6v6h-6zM5 13h6v6H5zM13 13h6v6h-6z",
  clock: "M12 4.5a7.5 7.5 0 100 15 7.5 7.5 0 000-15zM12 8v4.2l2.800 1.600",
  person: "M12 5a3.5 3.5 0 100 7 3.5 3.5 0 000-7zM5 19.5c.6-3.300 3.400-5 7-5s6.400 1.700 7 5",
  note: "M6 4.5h12v15H6zM9 9h6M9 12.5h6M9 16h3",
};

export function icon(/** @type {string} */ name) {
  const svg = document.createElementNS(SVG, "svg");
  const attributes = { viewBox: "0 0 24 24", fill: "none", stroke: "currentColor", "stroke-width": "2", "stroke-linecap": "round", "stroke-linejoin": "round", "aria-hidden": "true" };
  for (const [key, value] of Object.entries(attributes)) svg.setAttribute(key, value);
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** A message in place of something that is not there. @type {(iconName: string, title: string, text: string, ...more: any[]) => HTMLElement} */
export function empty(iconName, title, text, ...more) {
  return h("div.empty", null, h("div.mark", { class: iconName }, icon(iconName)), h("h1", null, title), h("p.soft", null, text), ...more);
}

/**
 * A button; `key` is the key that does the same, of the action `keyId` where a person may choose another key.
 * @param {string} label
 * @param {{ key?: string, keyId?: string, iconName?: string, kind?: string, [property: string]: any }} [options]
 */
export function button(label, { key, keyId, iconName, kind = "", ...properties } = {}) {
  return h(`button.button`, { type: "button", class: kind, ...properties }, iconName && icon(iconName), label, key && h("kbd", { "aria-hidden": "true", "data-action": keyId }, key));
}
