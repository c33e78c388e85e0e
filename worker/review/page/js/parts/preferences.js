/** What a person prefers, kept in this browser: theme, blur, grey, keys. */

const PREFIX = "sluice.";

export function preference(name, fallback) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + name) ?? "null") ?? fallback;
  } catch {
    return fallback;
  }
}

export function prefer(name, value) {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // Private windows may refuse; the choice then lasts as long as the page.
  }
}

const dark = matchMedia("(prefers-color-scheme: dark)");

export function applyTheme() {
  const theme = preference("theme", null) ?? (dark.matches ? "dark" : "light");
  document.documentElement.dataset.theme = theme;
  document.dispatchEvent(new CustomEvent("theme", { detail: theme }));
  return theme;
}

export function switchTheme() {
  prefer("theme", document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  return applyTheme();
}

/** Shows all images in grey, or in colour. */
export function applyGrey() {
  document.documentElement.toggleAttribute("data-grey", preference("grey", false));
}

dark.addEventListener("change", applyTheme);
