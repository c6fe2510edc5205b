/**
 * Error numbers that code here acts on, as on every machine Deno runs on
 * (include/uapi/asm-generic/errno-base.h, errno.h). All others are just reported.
 */

/** Not permitted. */
export const EPERM = 1;
/** A signal came in between: to be tried again. */
export const EINTR = 4;
/** No such descriptor. */
export const EBADF = 9;
/** Nothing to read, no room, or nobody to accept at this moment. */
export const EAGAIN = 11;
/** Somebody else has it. */
export const EBUSY = 16;
/** Of a connection that was to be accepted: it broke a rule of its protocol. */
export const EPROTO = 71;
/** The kernel does not know this socket option. */
export const ENOPROTOOPT = 92;
/** Of a connection that was to be accepted: its peer has gone again. */
export const ECONNABORTED = 103;
/** Messages were lost for want of room. */
export const ENOBUFS = 105;
/** Connecting has begun. */
export const EINPROGRESS = 115;
