/** From a host to a connection: resolve, judge every address, and dial exactly what was judged. */
import { messageOf } from "../errors.ts";
import { logger } from "../log.ts";
import type { Host } from "../net/host.ts";
import { Ip } from "../net/ip.ts";
import { admitAddress } from "./admission.ts";
import type { ProxyContext } from "./context.ts";
import type { Exchange } from "./exchange.ts";
import type { Reading } from "./facts.ts";
import { TimeLimitExceeded, within } from "./limit.ts";
import { Refusal } from "./refusal.ts";
import { BufferedConn } from "./stream.ts";

const log = logger("proxy");

/** A hostile DNS server may answer with hundreds of addresses; more than these are not tried. */
const MAX_ADDRESSES = 8;

/**
 * Connects to `host` on behalf of an exchange, and holds the judgement of the address that
 * answered. Throws a {@linkcode Refusal}: 403 when no address is admitted, 502 or 504 when none
 * of the admitted ones answers.
 */
export async function dial(
  context: ProxyContext,
  exchange: Exchange,
  destination: { readonly host: Host; readonly port: number },
  readings: readonly Reading[],
): Promise<BufferedConn> {
  const { host, port } = destination;
  const addresses = host instanceof Ip ? [host] : await resolve(context, exchange, host);
  const check = (ip: Ip) => () => admitAddress(context.judge, context.isLocalAddress, readings, ip);
  const admitted: Ip[] = [];
  let refusal: Refusal | null = null;
  for (const ip of addresses.slice(0, MAX_ADDRESSES)) {
    try {
      check(ip)();
      admitted.push(ip);
    } catch (thrown) {
      if (!(thrown instanceof Refusal)) throw thrown;
      refusal ??= thrown;
    }
  }
  if (refusal !== null && admitted.length === 0) throw refusal;
  let failure = failed(502, "the name has no address");
  for (const ip of admitted) {
    try {
      const conn = await connect(ip, port, context.limits.connectMs / admitted.length);
      exchange.attempt = { ...exchange.attempt, address: ip.text };
      exchange.adopt(conn);
      // Policy may have changed while the connection was being made.
      exchange.hold(check(ip));
      return conn;
    } catch (thrown) {
      if (!(thrown instanceof Refusal)) throw thrown;
      if (thrown.reason !== "upstream_failed") throw thrown;
      failure = thrown;
    }
  }
  throw failure;
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
    log.debug("resolving {host} failed: {error}", { host: host.name, error: messageOf(thrown) });
    // Generic on purpose: what the resolver says concerns the operator (S006-EC-003).
    throw failed(thrown instanceof TimeLimitExceeded ? 504 : 502, "the name could not be resolved");
  }
}

async function connect(ip: Ip, port: number, limitMs: number): Promise<BufferedConn> {
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
    throw abort.signal.aborted
      ? failed(504, "the destination did not answer in time")
      : failed(502, "the destination refused the connection or cannot be reached");
  } finally {
    clearTimeout(timer);
  }
}
