/** One question to one upstream, by UDP or TCP. */
import { messageOf } from "../errors.ts";
import { Ip } from "../net/ip.ts";
import { buildQuery } from "./build.ts";
import { Rcode, UDP_PAYLOAD_BYTES } from "./codes.ts";
import { readTcpMessage, writeTcpMessage } from "./framing.ts";
import type { Question, Response } from "./message.ts";
import { parseResponse } from "./parse.ts";
import type { Upstream } from "./upstreams.ts";

/** What came of asking one upstream. */
export type Exchange =
  | { readonly kind: "response"; readonly response: Response }
  /** It answered this question, with what cannot be read. */
  | { readonly kind: "malformed"; readonly why: string }
  | { readonly kind: "failed"; readonly why: string };

/**
 * Packets that are not our reply before UDP is given up for TCP. One or two can be late replies;
 * this many mean that somebody is guessing ids, and TCP cannot be guessed (RFC 5452 §9.1).
 */
const MAX_STRAYS = 16;

/** What a query says in its OPT record; null for none. */
type AskedEdns = { readonly dnssecOk: boolean } | null;

/** Whether the upstream may not know EDNS, and has to be asked without (RFC 6891 §7). */
function isUnknownEdns(exchanged: Exchange): boolean {
  return exchanged.kind === "response" &&
    (exchanged.response.rcode === Rcode.FORMERR || exchanged.response.rcode === Rcode.NOTIMP);
}

const failed = (why: string): Exchange => ({ kind: "failed", why });

function randomId(): number {
  return crypto.getRandomValues(new Uint16Array(1))[0] ?? 0;
}

/** Runs `onAbort` when the signal fires, at once if it already has; returns how to stop that. */
function whenAborted(signal: AbortSignal, onAbort: () => void): () => void {
  if (signal.aborted) onAbort();
  else signal.addEventListener("abort", onAbort, { once: true });
  return () => signal.removeEventListener("abort", onAbort);
}

/** Closing what is closed already throws, and that is all right. */
function closeQuietly(resource: { close(): void }): void {
  try {
    resource.close();
  } catch {
    // It was closed by the time limit.
  }
}

/**
 * Asks by UDP, from a socket of its own: id and source port are both random, so a blind forger has
 * to guess some 30 bits (RFC 5452). Packets from anybody but the upstream are not even read.
 * @returns null when the reply has to be fetched by TCP.
 */
async function askByUdp(
  upstream: Upstream,
  question: Question,
  edns: AskedEdns,
  resendAfterMs: number,
  signal: AbortSignal,
): Promise<Exchange | null> {
  const hostname = upstream.ip.version === 4 ? "0.0.0.0" : "::";
  const socket = Deno.listenDatagram({ transport: "udp", hostname, port: 0 });
  const release = whenAborted(signal, () => closeQuietly(socket));
  const id = randomId();
  const query = buildQuery(id, question, edns);
  const send = (): Promise<number> => {
    return socket.send(query, {
      transport: "udp",
      hostname: upstream.ip.text,
      port: upstream.port,
    });
  };
  // One packet may get lost; that alone must not cost the whole time limit.
  const resend = setTimeout(() => void send().catch(() => {}), resendAfterMs);
  try {
    await send();
    // One byte more than we announced, to tell a reply that is larger.
    const buffer = new Uint8Array(UDP_PAYLOAD_BYTES + 1);
    for (let strays = 0; strays < MAX_STRAYS; strays++) {
      const [packet, from] = await socket.receive(buffer);
      if (
        from.transport !== "udp" || from.port !== upstream.port ||
        !Ip.parse(from.hostname)?.equals(upstream.ip)
      ) continue;
      if (packet.length > UDP_PAYLOAD_BYTES) return null;
      const parsed = parseResponse(packet, id, question);
      if (parsed.kind === "stray") continue;
      if (parsed.kind === "malformed") return parsed;
      return parsed.response.truncated ? null : parsed;
    }
    return null;
  } finally {
    clearTimeout(resend);
    release();
    closeQuietly(socket);
  }
}

async function askByTcp(
  upstream: Upstream,
  question: Question,
  edns: AskedEdns,
  signal: AbortSignal,
): Promise<Exchange> {
  const conn = await Deno.connect({
    hostname: upstream.ip.text,
    port: upstream.port,
    signal,
  });
  const release = whenAborted(signal, () => closeQuietly(conn));
  try {
    const id = randomId();
    await writeTcpMessage(conn, buildQuery(id, question, edns));
    const packet = await readTcpMessage(conn);
    if (packet === null) return failed("connection closed before the reply");
    const parsed = parseResponse(packet, id, question);
    if (parsed.kind === "malformed") return parsed;
    if (parsed.kind === "stray") return failed(parsed.why);
    return parsed.response.truncated ? failed("truncated reply by TCP") : parsed;
  } finally {
    release();
    closeQuietly(conn);
  }
}

/**
 * Asks one upstream: by UDP, then by TCP when the reply does not fit (TC) or cannot be trusted; once
 * more without EDNS when it may not know that.
 * Never throws.
 * @param timeoutMs Limit for all of it; the UDP packet is sent once more after a quarter.
 * @param stop Ends the exchange early.
 */
export async function exchange(
  upstream: Upstream,
  question: Question,
  dnssecOk: boolean,
  timeoutMs: number,
  stop: AbortSignal,
): Promise<Exchange> {
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(), timeoutMs);
  const release = whenAborted(stop, () => limit.abort());
  try {
    const ask = async (edns: AskedEdns): Promise<Exchange> =>
      await askByUdp(upstream, question, edns, timeoutMs / 4, limit.signal) ??
        await askByTcp(upstream, question, edns, limit.signal);
    const first = await ask({ dnssecOk });
    return isUnknownEdns(first) ? await ask(null) : first;
  } catch (thrown) {
    if (stop.aborted) return failed("stopping");
    return failed(limit.signal.aborted ? `no reply within ${timeoutMs} ms` : messageOf(thrown));
  } finally {
    clearTimeout(timer);
    release();
  }
}
