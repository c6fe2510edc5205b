/** Waiting for a thread's answer, fairly: who waits may be the one that is held up. */

/**
 * How long to look once more before giving up. A timer that is overdue fires before messages are
 * read that arrived in the meantime.
 */
const SECOND_LOOK_MS = 1_000;

/**
 * Calls `giveUp` after `limitMs` and a second look, in which what has arrived is read.
 * @returns what takes it back.
 */
export function giveUpAfter(limitMs: number, giveUp: () => void): () => void {
  let timer = setTimeout(() => timer = setTimeout(giveUp, SECOND_LOOK_MS), limitMs);
  return () => clearTimeout(timer);
}
