/**
 * The witness: what really reached the internet, by two accounts. The kernel of the internet's
 * machine counts every packet that comes in by a cable, whether or not anything listens; the servers
 * write receipts with the names they were asked for. A client's error message proves nothing.
 */
import { z } from "zod";
import type { Receipt } from "./internet/receipts.ts";
import type { ReceiptReader } from "./internet/roll_call.ts";
import type { Machine } from "./machine.ts";

/** Which arrivals are meant; what is absent may be anything. */
export interface Arrival {
  /** Sender's address as the internet sees it: the host's own where the host masquerades. */
  readonly from?: string;
  /** Receiver's address. */
  readonly to?: string;
  /** `icmp` also stands for every protocol without ports. */
  readonly protocol?: "tcp" | "udp" | "icmp";
  readonly port?: number;
  /** Name in a receipt (question, server name or Host); packets have none and do not count then. */
  readonly name?: string;
}

/** Packets that the kernel counted from one address to another, by protocol and port. */
export interface PacketCount {
  readonly from: string;
  readonly to: string;
  readonly protocol: string;
  /** Destination port; 0 for protocols without ports. */
  readonly port: number;
  readonly packets: number;
}

/** What arrived, by both accounts. */
export interface Seen {
  readonly packets: readonly PacketCount[];
  readonly receipts: readonly Receipt[];
}

/** A moment to count from. */
export interface Mark {
  readonly packets: ReadonlyMap<string, number>;
  readonly receipts: number;
}

/** Whoever can tell what arrived. */
export interface Receiver {
  /** Now, to count from. */
  mark(): Promise<Mark>;
  /** What arrived since `mark` and fits `arrival`. */
  since(mark: Mark, arrival?: Arrival): Promise<Seen>;
}

/** Receipts from number `from` on that fit `arrival`. */
export function fitting(receipts: readonly Receipt[], from: number, arrival: Arrival): Receipt[] {
  return receipts.slice(from).filter((receipt) =>
    fits(arrival, { ...receipt, protocol: transport(receipt) }) &&
    (arrival.name === undefined || arrival.name === receipt.name)
  );
}

/** Whether nothing at all arrived. */
export function nothing(seen: Seen): boolean {
  return seen.packets.length === 0 && seen.receipts.length === 0;
}

/** Priority before connection tracking: a packet counts even if something later drops it. */
const TABLE = `
table inet witness {
  set ports4 { typeof ip saddr . ip daddr . meta l4proto . th dport; flags dynamic; counter; }
  set other4 { typeof ip saddr . ip daddr . meta l4proto; flags dynamic; counter; }
  set ports6 { typeof ip6 saddr . ip6 daddr . meta l4proto . th dport; flags dynamic; counter; }
  set other6 { typeof ip6 saddr . ip6 daddr . meta l4proto; flags dynamic; counter; }
  chain arriving {
    type filter hook prerouting priority -400; policy accept;
    iifname "lo" accept
    meta l4proto { tcp, udp } update @ports4 { ip saddr . ip daddr . meta l4proto . th dport }
    meta l4proto { tcp, udp } update @ports6 { ip6 saddr . ip6 daddr . meta l4proto . th dport }
    meta l4proto != { tcp, udp } update @other4 { ip saddr . ip daddr . meta l4proto }
    meta l4proto != { tcp, udp } update @other6 { ip6 saddr . ip6 daddr . meta l4proto }
  }
}
`;

/** As nft prints them, with /etc/protocols and without. */
const PROTOCOLS: Readonly<Record<string, string>> = {
  tcp: "tcp",
  "6": "tcp",
  udp: "udp",
  "17": "udp",
};

const listing = z.object({
  nftables: z.array(z.object({
    set: z.object({
      elem: z.array(z.object({
        elem: z.object({
          val: z.object({ concat: z.array(z.union([z.string(), z.number()])) }),
          counter: z.object({ packets: z.number() }),
        }),
      })).optional(),
    }).optional(),
  })),
});

/** Watches the machine that is the internet. */
export class Witness implements Receiver {
  private constructor(readonly machine: Machine, readonly receipts: ReceiptReader) {}

  /** Begins to count packets on `machine`. */
  static async start(machine: Machine, receipts: ReceiptReader): Promise<Witness> {
    await machine.must(["nft", "-f", "-"], { input: TABLE });
    return new Witness(machine, receipts);
  }

  /** Now, to count from. */
  async mark(): Promise<Mark> {
    const packets = await this.#packets();
    return {
      packets: new Map(packets.map((count) => [key(count), count.packets])),
      receipts: (await this.receipts.all()).length,
    };
  }

  /** What arrived since `mark` and fits `arrival`. */
  async since(mark: Mark, arrival: Arrival = {}): Promise<Seen> {
    const packets = (await this.#packets())
      .map((count) => ({ ...count, packets: count.packets - (mark.packets.get(key(count)) ?? 0) }))
      .filter((count) => count.packets > 0 && arrival.name === undefined && fits(arrival, count));
    return { packets, receipts: fitting(await this.receipts.all(), mark.receipts, arrival) };
  }

  async #packets(): Promise<PacketCount[]> {
    const json = await this.machine.must(["nft", "-j", "list", "table", "inet", "witness"]);
    return listing.parse(JSON.parse(json)).nftables
      .flatMap((entry) => entry.set?.elem ?? [])
      .map(({ elem }) => {
        const [from, to, protocol, port] = elem.val.concat;
        return {
          from: `${from}`,
          to: `${to}`,
          protocol: PROTOCOLS[`${protocol}`] ?? "icmp",
          port: Number(port ?? 0),
          packets: elem.counter.packets,
        };
      });
  }
}

function key(count: PacketCount): string {
  return `${count.from} ${count.to} ${count.protocol} ${count.port}`;
}

/** DNS receipts do not say which transport brought the question; UDP is what clients try first. */
function transport(receipt: Receipt): string {
  return receipt.kind === "dns" || receipt.kind === "udp" ? "udp" : "tcp";
}

function fits(
  arrival: Arrival,
  what: { from: string; to: string; port: number; protocol: string },
): boolean {
  return (arrival.from === undefined || arrival.from === what.from) &&
    (arrival.to === undefined || arrival.to === what.to) &&
    (arrival.port === undefined || arrival.port === what.port) &&
    (arrival.protocol === undefined || arrival.protocol === what.protocol);
}
