/** From a host to a connection: resolve, judge every address, and dial exactly what was judged. */
import { LookupError } from "../dns/lookup.ts";
import { messageOf } from "../errors.ts";
import { hostInLog, logger } from "../log.ts";
import type { Host } from "../net/host.ts";
import { Ip } from "../net/ip.ts";
import type { Admission } from "./admission.ts";
import type { ProxyContext } from "./context.ts";
import type { Exchange } from "./exchange.ts";
import { TimeLimitExceeded, within } from "./limit.ts";
import { Refusal } from "./refusal.ts";
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

/**
 * Connects to `host` on behalf of an exchange. Every address is judged by `admitIp` before it is
 * dialled, and the judgement of the one that answered is held. Throws a {@linkcode Refusal}: that
 * of `admitIp` when it admits none, 502 or 504 when none of the admitted ones answers.
 */
export async function dial(
  context: ProxyContext,
  exchange: Exchange,
  { host, port }: { readonly host: Host; readonly port: number },
  admitIp: (ip: Ip) => Admission,
): Promise<Dialled> {
  const addresses = host instanceof Ip ? [host] : await resolve(context, exchange, host);
  const admitted = admittedOf(addresses.slice(0, MAX_ADDRESSES), admitIp);
  let failure: Refusal | null = null;
  for (const ip of admitted) {
    const startedAtMs = performance.now();
    const stream = await connect(ip, port, context.limits.connectMs / admitted.length);
    context.onDial?.(performance.now() - startedAtMs, !(stream instanceof Refusal));
    // Policy may have changed while the connection was being made.
    if (!(stream instanceof Refusal)) return use(exchange, { stream, ip }, admitIp);
    failure = stream;
  }
  throw failure ?? failed(502, "the name has no address");
}

/** Goes on with a connection that there is: its address is judged, and the judgement held. */
export function use(
  exchange: Exchange,
  upstream: Upstream,
  admitIp: (ip: Ip) => Admission,
): Dialled {
  const { stream, ip } = upstream;
  exchange.adopt(stream);
  exchange.attempt = { ...exchange.attempt, address: ip.text };
  return { upstream, admission: exchange.hold(() => admitIp(ip)) };
}

/** The addresses that may be dialled; throws the first refusal when there is none but refused ones. */
function admittedOf(addresses: readonly Ip[], admitIp: (ip: Ip) => Admission): Ip[] {
  const admitted: Ip[] = [];
  let refusal: Refusal | null = null;
  for (const ip of addresses) {
    try {
      admitIp(ip);
      admitted.push(ip);
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

async function resolve(
  context: ProxyContext,
  exchange: Exchange,
  host: Exclude<Host, Ip>,
): Promise<readonly Ip[]> {
  try {
    return await within(context.limits.resolveMs, context.resolve(host, exchange.agent));
  } catch (thrown) {
    log.debug("resolving {host} failed: {error}", {
      host: hostInLog(host.name),
      error: messageOf(thrown),
    });
    if (thrown instanceof LookupError && thrown.refusal !== null) {
      const { reason, rule, generation } = thrown.refusal;
      throw new Refusal(403, "dial", reason, "the name may not be resolved", { rule, generation });
    }
    // Generic on purpose: what the resolver says concerns the operator (S006-EC-003).
    throw failed(thrown instanceof TimeLimitExceeded ? 504 : 502, "the name could not be resolved");
  }
}

/** A connection, or why there is none. */
async function connect(ip: Ip, port: number, limitMs: number): Promise<BufferedConn | Refusal> {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), limitMs);
  try {
    return new BufferedConn(
      await Deno.connect({ hostname: ip.text, port, signal: abort.signal }),
    );
  } catch (thrown) {
    log.debug("connecting to {address}:{port} failed: {error}", {
      address: ip.text,
      port,
      error: messageOf(thrown),
    });
    return abort.signal.aborted
      ? failed(504, "the destination did not answer in time")
      : failed(502, "the destination refused the connection or cannot be reached");
  } finally {
    clearTimeout(timer);
  }
}
