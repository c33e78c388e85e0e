/** Who may do what; the desk checks, the page only leaves out what would be refused. */

const ORDER = ["viewer", "reviewer", "lead", "admin"];

export function roleIncludes(role, other) {
  return ORDER.indexOf(role) >= ORDER.indexOf(other);
}
