/** Who gets the processor first. */
import { bindLibc } from "./libc.ts";

/** PRIO_PROCESS (include/uapi/linux/resource.h): with 0, Linux means the calling thread alone. */
const PRIO_PROCESS = 0;

const libc = bindLibc({
  setpriority: { parameters: ["i32", "u32", "i32"], result: "i32" },
});

/**
 * Gives the calling thread this nice value, -20 (first) to 19 (last). Without CAP_SYS_NICE it stays
 * as it is.
 */
export function setThreadNiceness(niceness: number): void {
  libc.setpriority(PRIO_PROCESS, 0, niceness);
}
