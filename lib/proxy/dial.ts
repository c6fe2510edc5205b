/** From a host to a connection: resolve, judge every address, and dial exactly what was judged. */
import { LookupError } from "../dns/lookup.ts";
import { messageOf } from "../errors.ts";
import { hostInLog, logger } from "../log.ts";
import type { Host } from "../net/host.ts";
import type { Admission } from "./admission.ts";
import type { ProxyContext } from "./context.ts";
import type { Destination } from "./destination.ts";
import type { Exchange } from "./exchange.ts";
import { TimeLimitExceeded, within } from "./limit.ts";
import { Refusal } from "./refusal.ts";
import { TcpSocket } from "./socket.ts";
import type { Upstream } from "./spare.ts";
import { BufferedConn } from "./stream.ts";

const log = logger("proxy");

/** A hostile DNS server may answer with hundreds of addresses; more than these are not tried. */
const MAX_ADDRESSES = 8;

/** A connection to upstream, and the judgement of its address. */
export interface Dialled {
  readonly upstream: Upstream;
  readonly admission: Admission;
}

/** Judges an address that is about to be dialled; throws the refusal. */
export type AdmitTo = (destination: Destination) => Admission;

/**
 * Connects to `host` on behalf of an exchange. Every address is judged by `admitTo` before it is
 * dialled, and the judgement of the one that answered is held. Throws a {@linkcode Refusal}: that
 * of `admitTo` when it admits none, 502 or 504 when none of the admitted ones answers.
 */
export async function dial(
  context: ProxyContext,
  exchange: Exchange,
  { host, port }: { readonly host: Host; readonly port: number },
  admitTo: AdmitTo,
): Promise<Dialled> {
  return await connectTo(context, exchange, await locate(context, exchange, host), port, admitTo);
}

/** The same when it is known where the host is. */
export async function connectTo(
  context: ProxyContext,
  exchange: Exchange,
  destinations: readonly Destination[],
  port: number,
  admitTo: AdmitTo,
): Promise<Dialled> {
  const admitted = admittedOf(destinations.slice(0, MAX_ADDRESSES), admitTo);
  let failure: Refusal | null = null;
  for (const destination of admitted) {
    const startedAtMs = performance.now();
    const stream = await connect(context, exchange, destination, port, admitted.length);
    context.onDial(performance.now() - startedAtMs, !(stream instanceof Refusal));
    // Policy may have changed while the connection was being made.
    if (!(stream instanceof Refusal)) return use(exchange, { stream, destination }, admitTo);
    failure = stream;
  }
  throw failure ?? failed(502, "the name has no address");
}

/** Goes on with a connection that there is: its address is judged, and the judgement held. */
export function use(exchange: Exchange, upstream: Upstream, admitTo: AdmitTo): Dialled {
  const { stream, destination } = upstream;
  exchange.adopt(stream);
  exchange.attempt = { ...exchange.attempt, address: destination.ip.text };
  return { upstream, admission: exchange.hold(() => admitTo(destination)) };
}

/** The addresses that may be dialled; throws the first refusal when there is none but refused ones. */
function admittedOf(destinations: readonly Destination[], admitTo: AdmitTo): Destination[] {
  const admitted: Destination[] = [];
  let refusal: Refusal | null = null;
  for (const destination of destinations) {
    try {
      admitTo(destination);
      admitted.push(destination);
    } catch (thrown) {
      if (!(thrown instanceof Refusal)) throw thrown;
      refusal ??= thrown;
    }
  }
  if (refusal !== null && admitted.length === 0) throw refusal;
  return admitted;
}

function failed(status: 502 | 504, problem: string): Refusal {
  return new Refusal(status, "dial", "upstream_failed", problem);
}

/** Where the host is; throws a {@linkcode Refusal} when nobody can, or may, tell. */
export async function locate(
  { limits, loop, locate }: ProxyContext,
  { agent }: Exchange,
  host: Host,
): Promise<readonly Destination[]> {
  try {
    return await within(loop.timers, limits.resolveMs, locate(host, agent));
  } catch (thrown) {
    log.debug("resolving {host} failed: {error}", {
      host: hostInLog(String(host)),
      // The message has the name.
      error: thrown instanceof LookupError ? thrown.failure : messageOf(thrown),
    });
    // Generic on purpose: what the resolver says concerns the operator (S006-EC-003).
    if (thrown instanceof TimeLimitExceeded) throw failed(504, "the name could not be resolved");
    if (!(thrown instanceof LookupError)) throw thrown;
    if (thrown.refusal === null) throw failed(502, "the name could not be resolved");
    const { reason, rule, generation } = thrown.refusal;
    throw new Refusal(403, "dial", reason, "the name may not be resolved", { rule, generation });
  }
}

/** A connection, or why there is none; one of `count` addresses that share the time. */
async function connect(
  { limits, loop }: ProxyContext,
  { agent }: Exchange,
  { ip }: Destination,
  port: number,
  count: number,
): Promise<BufferedConn | Refusal> {
  let socket: TcpSocket | null = null;
  try {
    socket = TcpSocket.dial(loop, ip, port, agent.address);
    await within(loop.timers, limits.connectMs / count, socket.connected());
    return new BufferedConn(socket);
  } catch (thrown) {
    socket?.close();
    log.debug("connecting to {address}:{port} failed: {error}", {
      address: hostInLog(ip.text),
      port,
      error: messageOf(thrown),
    });
    return thrown instanceof TimeLimitExceeded
      ? failed(504, "the destination did not answer in time")
      : failed(502, "the destination refused the connection or cannot be reached");
  }
}
