/**
 * Tells that something about links or addresses has changed, here or in a namespace that a veth pair
 * leads to. What has changed is for the listener to look up: messages can be lost (ENOBUFS), a
 * fresh look cannot.
 */
import { bindLibc } from "./libc.ts";
import { NETLINK_ROUTE, openNetlink } from "./netlink_socket.ts";

// include/uapi/linux/netlink.h, rtnetlink.h
const NETLINK_LISTEN_ALL_NSID = 8;
const RTMGRP_LINK = 1;
const RTMGRP_IPV4_IFADDR = 0x10;
/** The content does not matter, so a message may be cut off. */
const BUFFER_BYTES = 4096;
/** How long a thread waits in the kernel before it looks whether anybody still listens. */
const RECEIVE_TIMEOUT_MS = 250;

const libc = bindLibc({
  close: { parameters: ["i32"], result: "i32" },
});
// On a thread of its own: what it returns is not needed, so neither is errno.
const waiting = bindLibc({
  recv: {
    parameters: ["i32", "buffer", "usize", "i32"],
    result: "isize",
    nonblocking: true,
  },
});

/**
 * Calls `onEvent` for each change of links and IPv4 addresses until `signal` is aborted; resolves
 * then.
 * @throws SystemError when the kernel cannot be listened to.
 */
export async function followLinks(signal: AbortSignal, onEvent: () => void): Promise<void> {
  const fd = openNetlink(NETLINK_ROUTE, {
    timeoutMs: RECEIVE_TIMEOUT_MS,
    options: { "listen to the agents' namespaces": NETLINK_LISTEN_ALL_NSID },
    groups: RTMGRP_LINK | RTMGRP_IPV4_IFADDR,
  });
  const buffer = new Uint8Array(BUFFER_BYTES);
  try {
    while (!signal.aborted) {
      const received = await waiting.recv(fd, buffer, BigInt(buffer.length), 0);
      // An error is the timeout, a signal, or the loss of messages, after which others follow.
      if (received > 0n && !signal.aborted) onEvent();
    }
  } finally {
    libc.close(fd);
  }
}
