/** Sleeping for less than a millisecond: nanosleep(2), prctl(2). */
import { bindLibc } from "./libc.ts";

/** include/uapi/linux/prctl.h; of the calling thread, in nanoseconds. */
const PR_SET_TIMERSLACK = 29;

const libc = bindLibc({
  nanosleep: { parameters: ["buffer", "pointer"], result: "i32" },
  prctl: { parameters: ["i32", "u64", "u64", "u64", "u64"], result: "i32" },
});

/** A short sleep, of the thread that made it. */
export class Nap {
  /** struct timespec: seconds and nanoseconds, 64 bits each. */
  readonly #time: BigInt64Array<ArrayBuffer>;

  /** @param lengthUs In microseconds, less than a second. */
  constructor(lengthUs: number) {
    this.#time = BigInt64Array.of(0n, 1000n * BigInt(lengthUs));
    // The kernel otherwise adds 50 µs, so as to end several threads' sleeps at once.
    libc.prctl(PR_SET_TIMERSLACK, 1n, 0n, 0n, 0n);
  }

  /** Sleeps, blocking this thread; a signal ends it early. */
  take(): void {
    libc.nanosleep(this.#time, null);
  }
}
