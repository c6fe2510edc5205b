/** Who gets the processor first. */
import { bindLibc } from "./libc.ts";

/** Number of sched_setattr(2), for which C libraries have no function. */
const SCHED_SETATTR = { x86_64: 314, aarch64: 274 }[Deno.build.arch];

/** getpriority(2), include/uapi/linux/resource.h: of one thread; 0 is the one that calls. */
const PRIO_PROCESS = 0;

/**
 * struct sched_attr (include/uapi/linux/sched/types.h), its first version: size u32, policy u32
 * (0: SCHED_OTHER), flags u64, nice i32, priority u32, runtime u64 in nanoseconds, two more u64.
 */
const ATTRIBUTES_BYTES = 48;
const NICE_AT = 16;
const RUNTIME_AT = 24;

const libc = bindLibc({
  syscall: { parameters: ["i64", "i32", "buffer", "u32"], result: "i64" },
  getpriority: { parameters: ["i32", "u32"], result: "i32" },
});

/** How urgent a thread is. Threads that it starts begin the same. */
export interface Urgency {
  /** -20 (first) to 19 (last): its share of the processor when others want it, too. */
  readonly niceness: number;
  /**
   * How long it mostly runs at a time, 100 to 100,000 µs, since Linux 6.12; 0: what is usual, some
   * milliseconds. A thread that wakes up does not have to wait until another one's time is over which
   * has asked for more.
   */
  readonly sliceUs: number;
}

/** Makes the calling thread this urgent. Without CAP_SYS_NICE it becomes no more urgent than it was. */
export function setThreadUrgency({ niceness, sliceUs }: Urgency): void {
  const attributes = new DataView(new ArrayBuffer(ATTRIBUTES_BYTES));
  attributes.setUint32(0, ATTRIBUTES_BYTES, true);
  attributes.setInt32(NICE_AT, niceness, true);
  attributes.setBigUint64(RUNTIME_AT, 1000n * BigInt(sliceUs), true);
  // 0: the calling thread.
  libc.syscall(BigInt(SCHED_SETATTR), 0, new Uint8Array(attributes.buffer), 0);
}

/**
 * The urgency of a thread for which others wait: the niceness that the calling thread has, which is
 * what whoever started the daemon chose, and the usual slice.
 */
export function usualUrgency(): Urgency {
  return { niceness: libc.getpriority(PRIO_PROCESS, 0), sliceUs: 0 };
}

/**
 * That of the main isolate and what it starts for its own bookkeeping: a little more than the usual
 * slice, which is 3 ms at most. Nobody waits for the end of a report, so whoever wakes up while one is
 * written goes first; an agent's program, or the threads that answer it, had to wait up to 4 ms
 * otherwise. Much more, and the isolate itself waits long where programs fill all processors.
 */
export function bookkeepingUrgency(): Urgency {
  return { ...usualUrgency(), sliceUs: 4_000 };
}
