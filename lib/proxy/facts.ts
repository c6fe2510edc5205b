/** What the proxy knows about a request, in the vocabulary of the rules. */
import { type Agent, agentFacts } from "../agents.ts";
import { type Host } from "../net/host.ts";
import { Ip } from "../net/ip.ts";
import { type Facts, MAX_BODY_BYTES } from "../rules/types.ts";
import { decodeUtf8 } from "./bytes.ts";
import { endToEnd, type Field, field } from "./fields.ts";
import type { ForwardRequest } from "./head.ts";
import { normalisePath, pathWithoutParameters } from "./target.ts";

/**
 * One way a request can be read. Every reading must be allowed: where the path could be read in two
 * ways, or the length of the body is not declared, policy must not depend on which one is true.
 */
export interface Reading {
  readonly facts: Facts;
  /** How this reading differs from the first one; null for the first. */
  readonly ambiguity: { readonly status: 400 | 411; readonly problem: string } | null;
}

function networkFacts(host: Host, port: number): NonNullable<Facts["network"]> {
  const text = String(host);
  return {
    hostname: text,
    port,
    protocol: "tcp",
    ...(host instanceof Ip ? { ip: text } : {}),
  };
}

/** Facts of a tunnel: nobody can see method and path inside it. */
export function tunnelFacts(host: Host, port: number, agent: Agent): Facts {
  return {
    network: networkFacts(host, port),
    http: { host: String(host), method: "CONNECT" },
    agent: agentFacts(agent),
  };
}

/** The same facts once the address is known that is about to be dialled. */
export function withAddress(facts: Facts, ip: Ip): Facts {
  return { ...facts, network: { ...facts.network, ip: ip.text } };
}

/** Host and, unless it is the scheme's own, port, as a Host field has them. */
export function hostFieldValue(host: Host, port: number): string {
  const name = host instanceof Ip && host.version === 6 ? `[${host.text}]` : String(host);
  return port === 80 ? name : `${name}:${port}`;
}

/** The fields that go upstream: Host from the URI, framing of our own, nothing hop-by-hop. */
export function fieldsForUpstream(request: ForwardRequest): Field[] {
  const ours = new Set(["host", "content-length", "expect"]);
  const fields = [
    field("Host", hostFieldValue(request.target.host, request.target.port)),
    ...endToEnd(request.fields).filter(({ name }) => !ours.has(name)),
  ];
  if (request.body.kind === "length") {
    fields.push(field("Content-Length", String(request.body.bytes)));
  }
  if (request.body.kind === "chunked") fields.push(field("Transfer-Encoding", "chunked"));
  if (request.webSocket) fields.push(field("Upgrade", "websocket"));
  if (request.webSocket) return [...fields, field("Connection", "Upgrade")];
  // A server that overlooks the body (of a GET, say) reads it as the next request, which nobody has
  // judged: it must not go on reading.
  const goesOn = request.persistent && request.body.kind === "none";
  return goesOn ? fields : [...fields, field("Connection", "close")];
}

/** Every reading of a plain request; `outgoing` are the fields as they would be sent on. */
export function readingsOf(
  request: ForwardRequest,
  outgoing: readonly Field[],
  agent: Agent,
): readonly Reading[] {
  const { host, port, path } = request.target;
  const normalised = normalisePath(path);
  const headers = headerFacts(outgoing);
  const facts = (readPath: string, bodyBytes: number): Facts => ({
    network: networkFacts(host, port),
    http: {
      method: request.method,
      path: readPath,
      host: String(host),
      headers,
      body_size: bodyBytes,
    },
    agent: agentFacts(agent),
  });
  const bodyBytes = request.body.kind === "length" ? request.body.bytes : 0;
  const readings: Reading[] = [{ facts: facts(normalised, bodyBytes), ambiguity: null }];
  for (const other of new Set([path, pathWithoutParameters(path)])) {
    if (other === normalised) continue;
    readings.push({
      facts: facts(other, bodyBytes),
      ambiguity: { status: 400, problem: "the path can be read in two ways; send it normalised" },
    });
  }
  if (request.body.kind === "chunked") {
    readings.push({
      facts: facts(normalised, MAX_BODY_BYTES),
      ambiguity: { status: 411, problem: "the length of the body matters; send Content-Length" },
    });
  }
  return readings;
}

/** Names in lower case, repeated fields joined; rules must see what goes upstream, not what was sent. */
function headerFacts(fields: readonly Field[]): Readonly<Record<string, string>> {
  const joined = new Map<string, string>();
  for (const { name, value } of fields) {
    const before = joined.get(name);
    const text = decodeUtf8(value);
    joined.set(name, before === undefined ? text : `${before}, ${text}`);
  }
  // A null prototype: `constructor` and the like are fields only when they were sent.
  return Object.assign(Object.create(null), Object.fromEntries(joined));
}
