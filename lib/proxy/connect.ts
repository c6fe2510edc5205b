/**
 * CONNECT: the host is judged before any look-up; the client then shows by its ClientHello which
 * server it means, and only when that agrees does the first byte go upstream (decision D24).
 */
import { Ip } from "../net/ip.ts";
import { type Admission, admit, admitAddress } from "./admission.ts";
import { bytesOf } from "./bytes.ts";
import { type ClientHello, parseClientHello } from "./client_hello.ts";
import type { ProxyContext } from "./context.ts";
import type { Destination } from "./destination.ts";
import { dial, locate } from "./dial.ts";
import type { Exchange } from "./exchange.ts";
import { type Reading, tunnelFacts } from "./facts.ts";
import type { TunnelRequest } from "./head.ts";
import { Deadline, TimeLimitExceeded } from "./limit.ts";
import { Refusal } from "./refusal.ts";
import type { BufferedConn } from "./stream.ts";

const ESTABLISHED = bytesOf("HTTP/1.1 200 Connection Established\r\n\r\n");

/**
 * Serves one tunnel to its end. Throws a {@linkcode Refusal}; `onAdmitted` is called once, when
 * upstream answers and before bytes are relayed.
 */
export async function tunnel(
  context: ProxyContext,
  client: BufferedConn,
  request: TunnelRequest,
  exchange: Exchange,
  onAdmitted: (admission: Admission) => void,
): Promise<void> {
  const { host } = request;
  // TLS sent ahead of the 200, or a second request: whoever reads it otherwise than we do wins.
  if (client.buffered.length > 0) {
    throw new Refusal(400, "connect", "malformed", "bytes follow the CONNECT request");
  }
  const facts = tunnelFacts(host, request.port, exchange.agent);
  const readings: readonly Reading[] = [{ facts, ambiguity: null }];
  const connectAdmission = exchange.hold(() => admit(context, "connect", readings));
  const admitTo = (destination: Destination): Admission =>
    admitAddress(context, readings, destination);
  // A literal address can be judged now, while there is still an answer to give.
  if (host instanceof Ip) (await locate(context, exchange, host)).forEach(admitTo);

  exchange.answered = true;
  await client.write(ESTABLISHED);

  // Any other rule that takes over from here, at the address or after a reload, must ask for as
  // little: the name was not looked at.
  const anyBytes = connectAdmission.tls === "any";
  const admission = anyBytes
    ? exchange.hold(() => assertAnyBytes(admit(context, "connect", readings)))
    : await admitServerName(context, client, request, exchange, readings);
  const dialled = await dial(
    context,
    exchange,
    request,
    (destination) => anyBytes ? assertAnyBytes(admitTo(destination)) : admitTo(destination),
  );
  const { reason, rule, generation } = dialled.admission;
  onAdmitted({ ...admission, reason, rule, generation });
  await exchange.relay(context.tunnels, dialled.upstream.stream);
}

/** Throws unless the rule takes whatever bytes the client sends. */
function assertAnyBytes(admission: Admission): Admission {
  if (admission.tls === "any") return admission;
  const { rule, generation } = admission;
  throw new Refusal(403, "sni", "sni_missing", "the server name was not checked", {
    rule,
    generation,
  });
}

async function admitServerName(
  context: ProxyContext,
  client: BufferedConn,
  request: TunnelRequest,
  exchange: Exchange,
  readings: readonly Reading[],
): Promise<Admission> {
  assertNames(await readClientHello(client, context), request);
  return exchange.hold(() => admit(context, "sni", readings));
}

async function readClientHello(
  client: BufferedConn,
  { limits, loop }: ProxyContext,
): Promise<ClientHello> {
  const deadline = new Deadline(loop.timers, limits.helloMs);
  for (;;) {
    const result = parseClientHello(client.buffered);
    if (result.kind === "hello") return result;
    if (result.kind === "refused") throw new Refusal(400, "sni", result.reason, result.problem);
    if (!await hasMore(client, deadline)) {
      throw new Refusal(400, "sni", "not_tls", "the client closed before its ClientHello");
    }
  }
}

async function hasMore(client: BufferedConn, deadline: Deadline): Promise<boolean> {
  try {
    return await deadline.within(client.fill());
  } catch (thrown) {
    if (thrown instanceof TimeLimitExceeded) {
      throw new Refusal(408, "sni", "limit", "the ClientHello took too long");
    }
    // A reset counts as an end: an attempt that breaks off here is recorded like any other.
    return false;
  }
}

function assertNames(hello: ClientHello, request: TunnelRequest): void {
  if (hello.serverName === null) {
    throw new Refusal(403, "sni", "sni_missing", "the ClientHello names no server");
  }
  if (hello.serverName.name !== String(request.host)) {
    const problem = hello.ech
      ? "the outer server name of the encrypted ClientHello is not the CONNECT host"
      : "the server name is not the CONNECT host";
    throw new Refusal(403, "sni", "sni_mismatch", problem);
  }
}
