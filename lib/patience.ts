/** Waiting that has an end. */

/**
 * How long to look once more before giving up. A timer that is overdue fires before messages are
 * read that arrived in the meantime.
 */
const SECOND_LOOK_MS = 1_000;

/**
 * Waits for a thread's answer, fairly: who waits may be the one that is held up. Calls `giveUp` after
 * `limitMs` and a second look, in which what has arrived is read.
 * @returns what takes it back.
 */
export function giveUpAfter(limitMs: number, giveUp: () => void): () => void {
  let timer = setTimeout(() => timer = setTimeout(giveUp, SECOND_LOOK_MS), limitMs);
  return () => clearTimeout(timer);
}

/**
 * Calls `end` after `limitMs`, or as soon as `atOnce` is aborted.
 * @returns what takes it back.
 */
export function endAfter(
  limitMs: number,
  atOnce: AbortSignal | undefined,
  end: () => void,
): () => void {
  const timer = setTimeout(end, atOnce?.aborted === true ? 0 : limitMs);
  const takeBack = (): void => {
    clearTimeout(timer);
    atOnce?.removeEventListener("abort", endNow);
  };
  const endNow = (): void => {
    takeBack();
    end();
  };
  atOnce?.addEventListener("abort", endNow);
  return takeBack;
}
