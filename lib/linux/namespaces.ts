/** Leaving the network namespace that a process was started in (unshare(2), network_namespaces(7)). */
import { bindLibc, checked } from "./libc.ts";

// include/uapi/linux/sched.h
const CLONE_NEWNET = 0x40000000;

const libc = bindLibc({
  unshare: { parameters: ["i32"], result: "i32" },
});

/**
 * Puts this thread, and every process it starts from now on, into a new network namespace with
 * nothing but a loopback interface that is down. Other threads stay where they are; Unix sockets of
 * the file system reach across.
 * @throws SystemError EPERM without CAP_SYS_ADMIN.
 */
export function enterNewNetwork(): void {
  checked("unshare the network", libc.unshare(CLONE_NEWNET));
}
