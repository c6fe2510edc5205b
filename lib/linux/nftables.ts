/**
 * nf_tables over netlink, for the two things that are asked too often to start a program for each:
 * changing elements of a set, and whether any ruleset has changed. What the messages hold is in
 * include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h of the kernel.
 */
import {
  attribute,
  concat,
  cString,
  nested,
  NetlinkFormatError,
  NLM_F_CREATE,
  parseAttributes,
} from "./netlink.ts";
import { type BatchMessage, NETLINK_NETFILTER, NetlinkSocket } from "./netlink_socket.ts";
import { nfgenmsg, NFGENMSG_BYTES, NFPROTO_UNSPEC } from "./nfnetlink.ts";

const NFNL_SUBSYS_NFTABLES = 10;
const NFNL_MSG_BATCH_BEGIN = 0x10;
const NFNL_MSG_BATCH_END = 0x11;
const NFT_MSG_NEWSETELEM = 12;
const NFT_MSG_DELSETELEM = 14;
const NFT_MSG_GETGEN = 16;
const NFTA_GEN_ID = 1;
const NFTA_SET_ELEM_LIST_TABLE = 1;
const NFTA_SET_ELEM_LIST_SET = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS = 3;
const NFTA_LIST_ELEM = 1;
const NFTA_SET_ELEM_KEY = 1;
const NFTA_SET_ELEM_TIMEOUT = 4;
const NFTA_DATA_VALUE = 1;
const NFPROTO_INET = 1;

/** An attribute holds 64 KiB, and an element takes 44 bytes at most. */
const MAX_ELEMENTS_PER_MESSAGE = 1000;

/** An element of a set. */
export interface SetElement {
  /** As the kernel compares it: see {@linkcode concatenatedKey}. */
  readonly key: Uint8Array;
  /** Null: until it is taken out. */
  readonly timeoutMs: number | null;
}

/** What is to become of elements of one set in table `inet` of the transaction. */
export interface SetChange {
  readonly set: string;
  /** Put in, whether or not they are there; an element that is gets this timeout from now on. */
  readonly put: readonly SetElement[];
  /** Taken out, whether or not they are there. */
  readonly remove: readonly Uint8Array[];
}

/** A concatenation's parts, each in network byte order, begin at multiples of 4 bytes. */
export function concatenatedKey(...fields: readonly Uint8Array[]): Uint8Array {
  return concat(...fields.map((field) => concat(field, new Uint8Array(-field.length & 3))));
}

function bigEndian64(value: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value));
  return bytes;
}

function typeOf(message: number): number {
  return NFNL_SUBSYS_NFTABLES << 8 | message;
}

function encodeElement({ key, timeoutMs }: SetElement): Uint8Array {
  return nested(
    NFTA_LIST_ELEM,
    nested(NFTA_SET_ELEM_KEY, attribute(NFTA_DATA_VALUE, key)),
    ...timeoutMs === null ? [] : [attribute(NFTA_SET_ELEM_TIMEOUT, bigEndian64(timeoutMs))],
  );
}

function* elementMessages(
  message: number,
  table: string,
  set: string,
  elements: readonly SetElement[],
): Generator<BatchMessage> {
  for (let i = 0; i < elements.length; i += MAX_ELEMENTS_PER_MESSAGE) {
    const chunk = elements.slice(i, i + MAX_ELEMENTS_PER_MESSAGE);
    yield {
      type: typeOf(message),
      flags: message === NFT_MSG_NEWSETELEM ? NLM_F_CREATE : 0,
      body: concat(
        nfgenmsg(NFPROTO_INET),
        attribute(NFTA_SET_ELEM_LIST_TABLE, cString(table)),
        attribute(NFTA_SET_ELEM_LIST_SET, cString(set)),
        nested(NFTA_SET_ELEM_LIST_ELEMENTS, ...chunk.map(encodeElement)),
      ),
    };
  }
}

/**
 * An element that is there keeps its timeout when it is added again, before Linux 6.12; one that is
 * not cannot be deleted. Added, deleted and added, it is there with the new one in every case.
 */
function* messagesOf(table: string, { set, put, remove }: SetChange): Generator<BatchMessage> {
  const gone = remove.map((key) => ({ key, timeoutMs: null }));
  const all = [...put, ...gone];
  yield* elementMessages(NFT_MSG_NEWSETELEM, table, set, all);
  yield* elementMessages(
    NFT_MSG_DELSETELEM,
    table,
    set,
    all.map(({ key }) => ({
      key,
      timeoutMs: null,
    })),
  );
  yield* elementMessages(NFT_MSG_NEWSETELEM, table, set, put);
}

/**
 * The kernel's nf_tables in this network namespace, by one socket that stays open: when one closes,
 * the kernel waits until everything that was deleted is gone (nft_rcv_nl_event), some 10 ms.
 */
export class Nftables implements Disposable {
  #socket: NetlinkSocket | null = null;

  /** Closes the socket; the next call opens another. */
  [Symbol.dispose](): void {
    this.#socket?.close();
    this.#socket = null;
  }

  /** What is left in the socket of a failed exchange is nobody's answer. */
  #exchange<T>(exchange: (socket: NetlinkSocket) => T): T {
    this.#socket ??= new NetlinkSocket(NETLINK_NETFILTER);
    try {
      return exchange(this.#socket);
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * Changes elements of sets in `table` of family `inet`, as one transaction: all of it or nothing.
   * In force when it returns, some 0.1 ms later.
   * @throws SystemError with the kernel's error, ENOENT without such a table or set.
   */
  changeElements(table: string, changes: readonly SetChange[]): void {
    const messages = changes.flatMap((change) => [...messagesOf(table, change)]);
    const last = messages.at(-1);
    if (last === undefined) return;
    const frame = { flags: 0, body: nfgenmsg(NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES) };
    const batch = [
      { type: NFNL_MSG_BATCH_BEGIN, ...frame },
      ...messages.slice(0, -1),
      { ...last, acknowledged: true },
      { type: NFNL_MSG_BATCH_END, ...frame },
    ];
    this.#exchange((socket) => socket.batch("change elements of an nftables set", batch));
  }

  /**
   * A number that every transaction of anybody raises by one: while it stays, no ruleset of this
   * network namespace has changed.
   * @throws SystemError with the kernel's error.
   */
  generation(): number {
    const answer = this.#exchange((socket) =>
      socket.get(
        "read the generation of nftables",
        typeOf(NFT_MSG_GETGEN),
        nfgenmsg(NFPROTO_UNSPEC),
      )
    );
    const id = answer && parseAttributes(answer.body.subarray(NFGENMSG_BYTES)).get(NFTA_GEN_ID);
    if (id?.length !== 4) throw new NetlinkFormatError("nftables has no generation");
    return new DataView(id.buffer, id.byteOffset).getUint32(0);
  }
}
