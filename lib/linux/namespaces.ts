/** Leaving behind what a process was started with: its network (unshare(2)), its open files. */
import { EBADF } from "./errno.ts";
import { bindLibc, checked, lastErrno, SystemError } from "./libc.ts";

// include/uapi/linux/sched.h
const CLONE_NEWNET = 0x40000000;

// include/uapi/linux/fcntl.h
const F_SETFD = 2;
const FD_CLOEXEC = 1;

const libc = bindLibc({
  unshare: { parameters: ["i32"], result: "i32" },
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
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

/**
 * Keeps every open file but the standard streams from the processes that are started from now on:
 * whoever started us may have left sockets open, which lead past any network namespace.
 * @throws SystemError
 */
export function keepFilesToOurselves(): void {
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    const fd = Number(name);
    if (fd <= 2 || libc.fcntl(fd, F_SETFD, FD_CLOEXEC) >= 0) continue;
    const errno = lastErrno();
    // The one by which the list was read is closed by now.
    if (errno !== EBADF) throw new SystemError("fcntl F_SETFD", errno);
  }
}
