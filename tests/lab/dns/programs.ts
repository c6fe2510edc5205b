/** The test's side of the lab's DNS programs: an upstream that says what it is told, a raw client. */
import { decode, encodeQuery, encodeReply } from "../../dns/oracle.ts";
import type { OracleMessage, OracleReply } from "../../dns/oracle.ts";
import type { Machine } from "../machine.ts";
import type { Process } from "../process.ts";
import { denoCommand } from "../product.ts";
import {
  heardSchema,
  type Order,
  questionKey,
  READY,
  type Received,
  receivedSchema,
  type Said,
  type Send,
} from "./lines.ts";

/** Longest wait for a reply: in vain it is a failure, and never a measurement. */
const REPLY_TIMEOUT_MS = 15_000;

async function start(machine: Machine, program: string, ...words: string[]): Promise<Process> {
  const process = machine.spawn([...denoCommand(new URL(program, import.meta.url)), ...words]);
  await process.line("stdout", (line) => line === READY);
  return process;
}

/** Gives `program` an order; returns the line that says it was done. */
async function order(
  program: Process,
  what: Omit<Order, "call"> | Omit<Send, "call">,
): Promise<string> {
  const call = crypto.randomUUID();
  const printed = program.stdout.length;
  await program.tell(JSON.stringify({ ...what, call }));
  return await program.line("stdout", (line) => line.includes(call), printed);
}

/** One packet of what the upstream says; without `name` and `type` it repeats the question. */
export interface Says extends Partial<Omit<OracleReply, "id">>, Omit<Said, "hex"> {
  /** Bytes instead of a message. */
  readonly raw?: Uint8Array;
}

/** What is said of one question, by each transport. */
export interface Script {
  readonly name: string;
  /** In the oracle's form. */
  readonly type?: string;
  readonly udp?: readonly Says[];
  /** As by UDP when absent. */
  readonly tcp?: readonly Says[];
  /** Only where this address is asked; everywhere when absent. */
  readonly at?: string;
}

/** A query that reached the upstream. */
export interface Heard {
  /** The upstream's address. */
  readonly at: string;
  readonly by: "udp" | "tcp";
  /** Empty where the packet has no question. */
  readonly name: string;
  readonly type: string;
  /** Null when it cannot be read. */
  readonly message: OracleMessage | null;
}

function readable(bytes: Uint8Array): OracleMessage | null {
  try {
    return decode(bytes);
  } catch {
    return null;
  }
}

/** A resolver on the lab's internet that is as honest as a test wants it, and the witness. */
export class ScriptedUpstream {
  private constructor(readonly process: Process, readonly port: number) {}

  /** Starts it at `addresses`, which `machine` has. */
  static async start(
    machine: Machine,
    addresses: readonly string[],
    port: number,
  ): Promise<ScriptedUpstream> {
    return new ScriptedUpstream(await start(machine, "upstream.ts", `${port}`, ...addresses), port);
  }

  /** From now on it says this; what it is not told about, it gives one public address. */
  async says(script: Script): Promise<void> {
    const { name, type = "A", at } = script;
    const key = questionKey(encodeQuery(name, type));
    if (key === null) throw new TypeError(`no question: ${name}`);
    for (const by of ["udp", "tcp"] as const) {
      const said = (by === "tcp" ? script.tcp : undefined) ?? script.udp ?? [];
      const replies = said.map(({ raw, idXor, from, afterMs, ...reply }) => ({
        hex: (raw ?? encodeReply({ id: 0, name, type, ...reply })).toHex(),
        ...(idXor === undefined ? {} : { idXor }),
        ...(from === undefined ? {} : { from }),
        ...(afterMs === undefined ? {} : { afterMs }),
      }));
      await order(this.process, { say: { by, key, replies, ...(at === undefined ? {} : { at }) } });
    }
  }

  /** Everything that it was asked, oldest first. */
  async heard(): Promise<readonly Heard[]> {
    await order(this.process, {});
    return this.process.stdout.slice(1).flatMap((line) => {
      const heard = heardSchema.parse(JSON.parse(line));
      if ("call" in heard) return [];
      const { at, by } = heard;
      const message = readable(Uint8Array.fromHex(heard.hex));
      const [question] = message?.questions ?? [];
      return { at, by, name: question?.name ?? "", type: question?.type ?? "", message };
    });
  }
}

/** A reply, and how long it was. */
export interface Reply extends OracleMessage {
  readonly sizeBytes: number;
}

function readReply(hex: string): Reply {
  const bytes = Uint8Array.fromHex(hex);
  return { ...decode(bytes), sizeBytes: bytes.length };
}

/** Where a client sends to. */
export interface Server {
  readonly to: string;
  readonly port: number;
}

/** Sends whatever bytes a test wants, from a machine. */
export class RawClient {
  private constructor(readonly process: Process) {}

  static async start(machine: Machine): Promise<RawClient> {
    return new RawClient(await start(machine, "client.ts"));
  }

  async #send(send: Omit<Send, "call">): Promise<Received> {
    return receivedSchema.parse(JSON.parse(await order(this.process, send)));
  }

  /** Sends datagrams from one socket; returns as many replies, fewer when no more come in time. */
  async udp(
    server: Server,
    packets: readonly Uint8Array[],
    replies = packets.length,
    timeoutMs = REPLY_TIMEOUT_MS,
  ): Promise<Reply[]> {
    const received = await this.#send({
      ...{ ...server, by: "udp", packets: packets.map((packet) => packet.toHex()) },
      ...{ replies, halfClose: false, timeoutMs },
    });
    return received.replies.map(readReply);
  }

  /** Sends messages on one connection, each with its length, or with `lengths`. */
  async tcp(
    server: Server,
    messages: readonly Uint8Array[],
    { length, halfClose = false }: { readonly length?: number; readonly halfClose?: boolean } = {},
  ): Promise<{ readonly replies: readonly Reply[]; readonly ended: boolean }> {
    const packets = messages.map((message) => {
      const prefix = length ?? message.length;
      return Uint8Array.of(prefix >> 8, prefix & 0xff, ...message).toHex();
    });
    const { replies, ended } = await this.#send({
      ...{ ...server, by: "tcp", packets, replies: messages.length },
      ...{ halfClose, timeoutMs: REPLY_TIMEOUT_MS },
    });
    return { replies: replies.map(readReply), ended };
  }
}
