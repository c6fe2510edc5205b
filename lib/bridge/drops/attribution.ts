/**
 * Whose packet the kernel dropped, and why.
 *
 * Who sent it is never taken from the packet alone. On a bridge the port counts, which is the
 * agent's own; behind it, address and MAC together on the right bridge, which the port pinning has
 * let through for the one agent that they are pinned to.
 */
import type { Attempt, Reason } from "../../decision.ts";
import type { LoggedPacket } from "../../linux/nflog.ts";
import {
  ETHER_ARP,
  ETHER_IPV4,
  ETHER_IPV6,
  isIpv6Housekeeping,
  type PacketHead,
  parsePacket,
} from "../../net/packet.ts";
import type { Pin } from "../ports.ts";
import type { DropPrefix } from "../report.ts";

/** One dropped packet. */
export interface Drop {
  readonly reason: Reason;
  /** The port it came from, or null when no agent is known to have sent it. */
  readonly pin: Pin | null;
  /** What its sender cannot choose: one text for each agent, port, or for everybody else. */
  readonly sender: string;
  /** The agent's address; without one, what the packet gives as its sender's, or its MAC. */
  readonly source: string;
  readonly attempt: Attempt;
}

/** The pins of one moment, by what a logged packet is known by. */
export class PinIndex {
  readonly #byPort: ReadonlyMap<number, Pin>;
  readonly #byAddress: ReadonlyMap<string, Pin>;

  constructor(pins: readonly Pin[]) {
    this.#byPort = new Map(pins.map((pin) => [pin.index, pin]));
    this.#byAddress = new Map(pins.map((pin) => [pin.address, pin]));
  }

  /** The pin of the port with this kernel index. */
  ofPort(index: number | null): Pin | null {
    return index === null ? null : this.#byPort.get(index) ?? null;
  }

  /** The pin to this address and MAC. */
  ofSender(address: string, mac: string | null): Pin | null {
    const pin = this.#byAddress.get(address);
    return pin === undefined || pin.mac !== mac ? null : pin;
  }
}

/** What {@linkcode attribute} asks. */
export interface Attributors {
  readonly pins: PinIndex;
  /** The name of the interface with this kernel index, or null when it is gone. */
  readonly deviceName: (index: number) => string | null;
}

function isPrefix(text: string): text is DropPrefix {
  return REASONS_OF_PREFIX.has(text);
}

/** Null: it is told by the packet. */
const REASONS_OF_PREFIX: ReadonlyMap<string, Reason | null> = new Map<DropPrefix, Reason | null>([
  ["forward_denied", "forward_denied"],
  ["agent_to_agent", "agent_to_agent"],
  ["neighbour", "agent_to_agent"],
  ["input_denied", "input_denied"],
  ["spoofed", "spoofed"],
  ["ipv6", "ipv6"],
  ["outside_denied", "outside_denied"],
  ["not_as_pinned", null],
  ["foreign_port", null],
]);

function attemptOf(head: PacketHead | null, packet: LoggedPacket): Attempt {
  if (head === null) return { protocol: `0x${packet.etherType.toString(16).padStart(4, "0")}` };
  const { destination, protocol, port } = head;
  return { address: destination.text, protocol, ...port === undefined ? {} : { port } };
}

/** Why a port's packet was dropped for not being as pinned; null: nobody attempted anything. */
function portReason(packet: LoggedPacket, head: PacketHead | null, pin: Pin | null): Reason | null {
  if (packet.isTagged || ![ETHER_IPV4, ETHER_ARP, ETHER_IPV6].includes(packet.etherType)) {
    return "foreign_ethertype";
  }
  if (head === null) return "malformed";
  if (packet.etherType === ETHER_IPV6) return isIpv6Housekeeping(head) ? null : "ipv6";
  const isOwn = pin === null || (packet.mac === pin.mac && head.source.text === pin.address);
  if (!isOwn) return "spoofed";
  // Looking for a neighbour comes before every first packet, which tells more.
  return packet.etherType === ETHER_ARP ? null : "unpinned";
}

function senderPin(
  prefix: DropPrefix,
  packet: LoggedPacket,
  head: PacketHead | null,
  { pins, deviceName }: Attributors,
): Pin | null {
  if (prefix === "outside_denied") return null;
  if (packet.port !== null) return pins.ofPort(packet.port);
  if (head === null || packet.device === null) return null;
  const pin = pins.ofSender(head.source.text, packet.mac);
  return pin !== null && deviceName(packet.device) === pin.bridge ? pin : null;
}

/** Who attempted what; null for packets that are not ours, or that are nobody's attempt. */
export function attribute(packet: LoggedPacket, attributors: Attributors): Drop | null {
  const { prefix } = packet;
  if (!isPrefix(prefix)) return null;
  const head = parsePacket(packet.etherType, packet.payload);
  const pin = senderPin(prefix, packet, head, attributors);
  const reason = REASONS_OF_PREFIX.get(prefix) ?? portReason(packet, head, pin);
  if (reason === null) return null;
  if (reason === "ipv6" && head !== null && isIpv6Housekeeping(head)) return null;
  // An interface that announces itself asks for its own address (RFC 5227 §3).
  if (prefix === "neighbour" && head?.destination.text === pin?.address) return null;
  const claimed = head?.source.text ?? packet.mac ?? "";
  const attempt = attemptOf(head, packet);
  return {
    reason,
    pin,
    sender: pin !== null
      ? `agent ${pin.index}`
      : packet.port !== null
      ? `port ${packet.port}`
      : "outside",
    source: pin?.address ?? claimed,
    attempt: pin === null || claimed === pin.address || head === null
      ? attempt
      : { ...attempt, claimedSource: claimed },
  };
}
