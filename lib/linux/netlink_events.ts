/**
 * Tells that something about links or addresses has changed, here or in a namespace that a veth pair
 * leads to. What has changed is for the listener to look up: messages can be lost (ENOBUFS), a
 * fresh look cannot.
 */
import { bindLibc, checked } from "./libc.ts";

// include/uapi/linux/netlink.h, rtnetlink.h
const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const NETLINK_ROUTE = 0;
const SOL_SOCKET = 1;
const SO_RCVTIMEO = 20;
const SOL_NETLINK = 270;
const NETLINK_LISTEN_ALL_NSID = 8;
const RTMGRP_LINK = 1;
const RTMGRP_IPV4_IFADDR = 0x10;
/** struct sockaddr_nl: family u16, pad u16, port id u32, groups u32. */
const SOCKADDR_NL_BYTES = 12;
/** The content does not matter, so a message may be cut off. */
const BUFFER_BYTES = 4096;
/** How long a thread waits in the kernel before it looks whether anybody still listens. */
const RECEIVE_TIMEOUT_MS = 250;

const libc = bindLibc({
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
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

function subscribe(): number {
  const fd = checked(
    "open a netlink socket",
    libc.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE),
  );
  try {
    const timeout = new BigInt64Array([0n, BigInt(RECEIVE_TIMEOUT_MS) * 1000n]);
    checked(
      "set the receive timeout",
      libc.setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, new Uint8Array(timeout.buffer), 16),
    );
    checked(
      "listen to the agents' namespaces",
      libc.setsockopt(
        fd,
        SOL_NETLINK,
        NETLINK_LISTEN_ALL_NSID,
        new Uint8Array(new Uint32Array([1]).buffer),
        4,
      ),
    );
    const address = new DataView(new ArrayBuffer(SOCKADDR_NL_BYTES));
    address.setUint16(0, AF_NETLINK, true);
    address.setUint32(8, RTMGRP_LINK | RTMGRP_IPV4_IFADDR, true);
    checked(
      "bind the netlink socket",
      libc.bind(fd, new Uint8Array(address.buffer), SOCKADDR_NL_BYTES),
    );
    return fd;
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

/**
 * Calls `onEvent` for each change of links and IPv4 addresses until `signal` is aborted; resolves
 * then.
 * @throws SystemError when the kernel cannot be listened to.
 */
export async function followLinks(signal: AbortSignal, onEvent: () => void): Promise<void> {
  const fd = subscribe();
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
