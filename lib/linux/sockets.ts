/**
 * The kernel's numbers for sockets of every kind, as on every machine Deno runs on. Those of one
 * protocol or one call stand beside the code that uses them.
 */

// include/linux/socket.h

/** IPv4. */
export const AF_INET = 2;
/** IPv6. */
export const AF_INET6 = 10;
/** Flag of receiving: tells a datagram's whole length, also of one that was cut off. */
export const MSG_TRUNC = 0x20;
/** Flag of receiving and sending: fails with EAGAIN rather than wait. */
export const MSG_DONTWAIT = 0x40;

// include/linux/net.h

/** Flag of a new socket: no call on it waits. */
export const SOCK_NONBLOCK = 0o4000;
/** Flag of a new socket: child processes, such as nft, do not inherit it. */
export const SOCK_CLOEXEC = 0o2000000;

// include/uapi/asm-generic/socket.h

/** Level of the options that all sockets have. */
export const SOL_SOCKET = 1;
/** Option: room for what nobody has received yet, in bytes, beyond the host's limit. */
export const SO_RCVBUFFORCE = 33;

// include/uapi/asm-generic/poll.h

/** Event: there is something to read. */
export const POLLIN = 1;
/** struct pollfd: descriptor i32, awaited events i16, events i16. */
export const POLLFD_BYTES = 8;

/** What a call that never waits returns when there is nothing to do for it at this moment. */
export const AGAIN = -1;
