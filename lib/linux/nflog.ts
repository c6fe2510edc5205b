/**
 * The kernel's packet log (NFLOG, include/uapi/linux/netfilter/nfnetlink_log.h): joining a group,
 * and what the kernel tells of one logged packet. The packet's own bytes are the sender's, and are
 * only copied here.
 */
import { EBUSY, ENOBUFS, EPERM } from "./errno.ts";
import { SystemError } from "./libc.ts";
import {
  attribute,
  concat,
  NetlinkFormatError,
  type NetlinkMessage,
  parseAttributes,
  readCString,
  u32,
} from "./netlink.ts";
import { NETLINK_NETFILTER, NetlinkSocket } from "./netlink_socket.ts";
import { nfgenmsg, NFGENMSG_BYTES, NFPROTO_UNSPEC } from "./nfnetlink.ts";

// include/uapi/linux/netfilter/nfnetlink.h
const NFNL_SUBSYS_ULOG = 4;
const NFULNL_MSG_PACKET = NFNL_SUBSYS_ULOG << 8;
const NFULNL_MSG_CONFIG = (NFNL_SUBSYS_ULOG << 8) | 1;

const NFULNL_CFG_CMD_BIND = 1;
const NFULNL_COPY_PACKET = 2;
const NFULNL_CFG_F_SEQ = 1;
const NFULA_CFG_CMD = 1;
const NFULA_CFG_MODE = 2;
const NFULA_CFG_NLBUFSIZ = 3;
const NFULA_CFG_TIMEOUT = 4;
const NFULA_CFG_FLAGS = 6;

const NFULA_PACKET_HDR = 1;
const NFULA_IFINDEX_INDEV = 4;
const NFULA_IFINDEX_PHYSINDEV = 6;
const NFULA_HWADDR = 8;
const NFULA_PAYLOAD = 9;
const NFULA_PREFIX = 10;
const NFULA_SEQ = 12;
const NFULA_VLAN = 20;

const MAC_BYTES = 6;

/** The kernel keeps packets back until a datagram is full or this old, so that one wakes us for many. */
const BATCH_MS = 100;
/** Fits into what {@linkcode NetlinkSocket} receives at once. */
const BATCH_BYTES = 32 * 1024;
/** Some ten thousand packets, for when the reader is late. */
const RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024;
const SOCKET_TIMEOUT_MS = 2000;

/** One packet as the kernel logged it. */
export interface LoggedPacket {
  /** What the rule that logged it calls it. */
  readonly prefix: string;
  /** Kernel index of the interface it came in by; of a bridge's port, that of the bridge. */
  readonly device: number | null;
  /** Kernel index of the bridge's port it came in by, where the log was written there. */
  readonly port: number | null;
  /** The frame's source MAC, such as `02:42:0a:c8:00:02`. */
  readonly mac: string | null;
  /** Such as 0x0800. */
  readonly etherType: number;
  /** It came with a VLAN tag. */
  readonly isTagged: boolean;
  /** From the network header on, as far as it was copied; valid until the next read. */
  readonly payload: Uint8Array;
  /** Counts up within the group; null for what was logged while the group was being joined. */
  readonly sequence: number | null;
}

function bigEndian(bytes: Uint8Array | undefined, length: number, offset = 0): number | null {
  if (bytes === undefined) return null;
  if (bytes.length < offset + length) {
    throw new NetlinkFormatError(`${bytes.length} bytes where ${offset + length} are expected`);
  }
  let value = 0;
  for (let i = offset; i < offset + length; i++) value = value * 256 + (bytes[i] ?? 0);
  return value;
}

/** struct nfulnl_msg_packet_hw: length u16 in network order, padding u16, 8 bytes of address. */
function macOf(bytes: Uint8Array | undefined): string | null {
  if (bytes === undefined || bigEndian(bytes, 2) !== MAC_BYTES) return null;
  if (bytes.length < 4 + MAC_BYTES) throw new NetlinkFormatError("a hardware address is cut off");
  return Array.from(
    bytes.subarray(4, 4 + MAC_BYTES),
    (byte) => byte.toString(16).padStart(2, "0"),
  ).join(":");
}

/**
 * What a message of the packet log tells; null for other messages.
 * @throws NetlinkFormatError when the kernel's own part is not as documented.
 */
export function parseLoggedPacket(message: NetlinkMessage): LoggedPacket | null {
  if (message.type !== NFULNL_MSG_PACKET) return null;
  if (message.body.length < NFGENMSG_BYTES) throw new NetlinkFormatError("a header is cut off");
  const attributes = parseAttributes(message.body.subarray(NFGENMSG_BYTES));
  const etherType = bigEndian(attributes.get(NFULA_PACKET_HDR), 2);
  if (etherType === null) throw new NetlinkFormatError("a logged packet without its protocol");
  return {
    prefix: readCString(attributes.get(NFULA_PREFIX) ?? new Uint8Array()),
    device: bigEndian(attributes.get(NFULA_IFINDEX_INDEV), 4),
    port: bigEndian(attributes.get(NFULA_IFINDEX_PHYSINDEV), 4),
    mac: macOf(attributes.get(NFULA_HWADDR)),
    etherType,
    isTagged: attributes.has(NFULA_VLAN),
    payload: attributes.get(NFULA_PAYLOAD) ?? new Uint8Array(),
    sequence: bigEndian(attributes.get(NFULA_SEQ), 4),
  };
}

/** The kernel gives out no higher process ids (PID_MAX_LIMIT). */
const MAX_PID = 4_194_304;

/**
 * The process that listens to a group in this network namespace, by what the kernel lists: the
 * netlink address that it gives first is the process id. Further ones of a process are made up.
 */
export function listenerOf(group: number, listing: string): number | null {
  for (const line of listing.split("\n")) {
    const [listed, portId] = line.trim().split(/\s+/);
    if (listed === `${group}`) return Number(portId) <= MAX_PID ? Number(portId) : null;
  }
  return null;
}

/** Another program listens to the group: only one can. */
export class GroupTakenError extends Error {
  override readonly name = "GroupTakenError";

  /** @param pid Of that program, where the kernel tells. */
  constructor(readonly group: number, readonly pid: number | null) {
    super(
      `netfilter log group ${group} is taken by ${
        pid === null ? "another program" : `process ${pid}`
      }`,
    );
  }
}

/** What one call of {@linkcode PacketLog.read} brought. */
export interface LogRead {
  readonly packets: readonly LoggedPacket[];
  /** Packets that the kernel had logged and could not hand over, because we were late. */
  readonly lost: number;
}

/** A log group of this network namespace, joined. */
export class PacketLog implements Disposable {
  readonly #netlink: NetlinkSocket;
  /** The kernel numbers the packets of a new reader from 0 (nfulnl_instance of nfnetlink_log.c). */
  #nextSequence = 0;

  /**
   * Joins `group`; ends with {@linkcode close}.
   * @throws GroupTakenError, and SystemError for what else the kernel refuses.
   */
  constructor(group: number) {
    this.#netlink = new NetlinkSocket(NETLINK_NETFILTER, SOCKET_TIMEOUT_MS);
    try {
      this.#netlink.setReceiveBuffer(RECEIVE_BUFFER_BYTES);
      this.#join(group);
    } catch (error) {
      this.close();
      // The kernel refuses to change what another socket has joined (nfulnl_recv_config).
      if (error instanceof SystemError && [EPERM, EBUSY].includes(error.errno)) {
        const listing = Deno.readTextFileSync("/proc/self/net/netfilter/nfnetlink_log");
        const pid = listenerOf(group, listing);
        if (pid !== null) throw new GroupTakenError(group, pid);
      }
      throw error;
    }
  }

  #join(group: number): void {
    const configure = (...attributes: readonly Uint8Array[]): void =>
      this.#netlink.request(
        `join netfilter log group ${group}`,
        NFULNL_MSG_CONFIG,
        0,
        concat(nfgenmsg(NFPROTO_UNSPEC, group), ...attributes),
      );
    const big32 = (value: number): Uint8Array => u32(value).reverse();
    configure(attribute(NFULA_CFG_CMD, new Uint8Array([NFULNL_CFG_CMD_BIND])));
    configure(
      // struct nfulnl_msg_config_mode: bytes to copy u32 (0: all), mode u8, padding.
      attribute(NFULA_CFG_MODE, new Uint8Array([0, 0, 0, 0, NFULNL_COPY_PACKET, 0])),
      attribute(NFULA_CFG_NLBUFSIZ, big32(BATCH_BYTES)),
      attribute(NFULA_CFG_TIMEOUT, big32(BATCH_MS / 10)),
      attribute(NFULA_CFG_FLAGS, new Uint8Array([0, NFULNL_CFG_F_SEQ])),
    );
  }

  /** Resolves when there is something to read, or after `timeoutMs`. Do not close it before. */
  wait(timeoutMs: number): Promise<void> {
    return this.#netlink.waitForMessages(timeoutMs);
  }

  /**
   * The packets of the next datagram; null when none has arrived. Their payloads are valid until the
   * next call.
   * @throws SystemError, NetlinkFormatError: then the group is to be left and joined anew.
   */
  read(): LogRead | null {
    let messages: NetlinkMessage[] | null;
    try {
      messages = this.#netlink.receiveArrived("read the packet log");
    } catch (error) {
      // How many were lost the next packet's number tells.
      if (error instanceof SystemError && error.errno === ENOBUFS) return { packets: [], lost: 0 };
      throw error;
    }
    if (messages === null) return null;
    let lost = 0;
    const packets = messages.map(parseLoggedPacket).filter((packet) => packet !== null);
    for (const { sequence } of packets) {
      if (sequence === null) continue;
      lost += (sequence - this.#nextSequence) >>> 0;
      this.#nextSequence = (sequence + 1) >>> 0;
    }
    return { packets, lost };
  }

  /** Leaves the group. */
  close(): void {
    this.#netlink.close();
  }

  /** Leaves the group at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }
}
