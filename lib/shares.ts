/** Keeps what all agents need together from being taken by a few of them. */

/**
 * A bounded number of places, and who holds how many.
 *
 * Nobody may hold more places than are free: the dynamic threshold by which switches share their
 * buffers (Choudhury and Hahne, 1998). As places come free and are taken again, one who takes what
 * there is ends up with half of them, two with a third each, and so on; as many are left for who
 * holds none.
 */
export class Shares<Holder> {
  readonly #held = new Map<Holder, number>();
  #taken = 0;

  /** @param maxEach Of one holder, however much is free. */
  constructor(readonly places: number, readonly maxEach: number) {}

  /**
   * Whether `holder` may take another place.
   * @param ofFree Part of what is free, at most 1, that may be held by it: less for what matters less.
   */
  hasRoomFor(holder: Holder, ofFree = 1): boolean {
    const free = this.places - this.#taken;
    return (this.#held.get(holder) ?? 0) < Math.min(this.maxEach, free * ofFree);
  }

  /** Gives a place to `holder`, for which there is room. */
  take(holder: Holder): void {
    this.#held.set(holder, (this.#held.get(holder) ?? 0) + 1);
    this.#taken++;
  }

  /** Takes a place back that `holder` has. */
  release(holder: Holder): void {
    const left = (this.#held.get(holder) ?? 1) - 1;
    if (left === 0) this.#held.delete(holder);
    else this.#held.set(holder, left);
    this.#taken--;
  }
}
