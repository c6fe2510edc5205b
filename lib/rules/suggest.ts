/** "Did you mean": the known word nearest to a mistyped one. */

/** Edits (insert, delete, replace, swap neighbours) that turn `a` into `b`: optimal string alignment. */
function distance(a: string, b: string): number {
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      const isSwap = a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      const swapped = isSwap ? (before[j - 2] ?? Infinity) + 1 : Infinity;
      next.push(Math.min(replaced, swapped, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    before = row;
    row = next;
  }
  return row[b.length] ?? 0;
}

/** The word of `known` nearest to `word`, or null when none is near enough to be meant. */
export function nearest(word: string, known: readonly string[]): string | null {
  // Beyond this length nobody mistypes; it also bounds the work on hostile input.
  if (word.length > 64) return null;
  const lower = word.toLowerCase();
  const ranked = known
    .map((candidate) => ({ candidate, edits: distance(lower, candidate.toLowerCase()) }))
    .sort((a, b) => a.edits - b.edits);
  const best = ranked[0];
  if (best === undefined) return null;
  const tolerated = Math.max(1, Math.floor(best.candidate.length / 3));
  return best.edits <= tolerated ? best.candidate : null;
}
