/** Roles, in order. The desk checks them; the page only hides what would be refused. */

const ORDER = ["viewer", "reviewer", "lead", "admin"];

export function roleIncludes(role, other) {
  return ORDER.indexOf(role) >= ORDER.indexOf(other);
}
