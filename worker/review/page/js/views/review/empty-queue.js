/** Why a queue has no image for this reviewer. */

import { address } from "../../parts/address.js";
import { count } from "../../parts/words.js";

/**
 * @typedef {{ name: string, open: number, leased: number, escalated: number }} Queue
 * @typedef {{ icon: string, title: string, text: string, link: { href: string, label: string } | null }} Message
 */

/**
 * @param {{ queue: string, which: { escalated: boolean, skipped: boolean } }} asked
 * @param {Queue[]} queues as the desk counts them
 * @returns {Message}
 */
export function emptyQueue({ queue: name, which }, queues) {
  const queue = queues.find((each) => each.name === name);
  if (!queue) return { icon: "broken", title: "There is no such queue", text: `No queue is called “${name}”. A queue appears when the policy sends the first image to it.`, link: null };
  const open = { href: address("review", name), label: "Continue with the queue" };
  if (which.skipped) return { icon: "check", title: "No skipped images left", text: `None of the images that you skipped in “${name}” is waiting any more.`, link: open };
  if (which.escalated) {
    if (queue.escalated) return { icon: "clock", title: "Nothing for you now", text: `${count(queue.escalated, "escalated image")} in “${name}”, with other leads at the moment.`, link: open };
    return { icon: "check", title: "All clear", text: `Nothing in “${name}” waits for a lead.`, link: open };
  }
  if (!queue.open) return { icon: "check", title: "All clear", text: `Nothing waits in “${name}”. New images appear here by themselves.`, link: null };
  const others = Math.min(queue.leased, queue.open);
  const rest = queue.open - others;
  const parts = [others > 0 && `${count(others, "image")} ${others === 1 ? "is" : "are"} with other reviewers`, rest > 0 && `${count(rest, "image")} ${rest === 1 ? "waits" : "wait"} for somebody else: you skipped or judged ${rest === 1 ? "it" : "them"}, or ${rest === 1 ? "it is" : "they are"} assigned to others`];
  return { icon: "clock", title: "Nothing for you now", text: `In “${name}” ${parts.filter(Boolean).join("; ")}.`, link: rest > 0 ? { href: address("review", name, "skipped"), label: "Look again at what you skipped" } : null };
}
