/** What the proxy knows about a request, in the vocabulary of the rules. */
import { type Agent, agentFacts } from "../agents.ts";
import { type Host } from "../net/host.ts";
import { Ip } from "../net/ip.ts";
import type { Facts } from "../rules/types.ts";
import { decodeUtf8 } from "./bytes.ts";
import { endToEnd, type Field, field, variableName } from "./fields.ts";
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

const REWRITTEN: ReadonlySet<string> = new Set(["host", "content-length", "expect"]);

/** The fields that go upstream: Host from the URI, framing of our own, nothing hop-by-hop. */
export function fieldsForUpstream(request: ForwardRequest): Field[] {
  const fields = [
    field("Host", hostFieldValue(request.target.host, request.target.port)),
    ...endToEnd(request.fields).filter(({ name }) => !REWRITTEN.has(name)),
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
  const { method, target: { host, port, path }, body } = request;
  const network = networkFacts(host, port);
  const who = agentFacts(agent);
  const [usualHeaders, ...otherHeaders] = headerReadings(outgoing);
  const usualPath = normalisePath(path);
  const paths = new Set([usualPath, path, pathWithoutParameters(path)]);
  const bodySizes = body.kind === "chunked" ? [0, null] : [body.kind === "length" ? body.bytes : 0];
  const readings: Reading[] = [];
  for (const headers of [usualHeaders, ...otherHeaders]) {
    for (const readPath of paths) {
      for (const bodyBytes of bodySizes) {
        const ambiguity = headers !== usualHeaders
          ? AMBIGUOUS.headers
          : readPath !== usualPath
          ? AMBIGUOUS.path
          : bodyBytes !== bodySizes[0]
          ? AMBIGUOUS.bodySize
          : null;
        const http = { method, path: readPath, host: String(host), headers, body_size: bodyBytes };
        readings.push({ facts: { network, http, agent: who }, ambiguity });
      }
    }
  }
  return readings;
}

const AMBIGUOUS = {
  headers: { status: 400, problem: "a header can be read in two ways; send it once, with hyphens" },
  path: { status: 400, problem: "the path can be read in two ways; send it normalised" },
  bodySize: { status: 411, problem: "the length of the body matters; send Content-Length" },
} as const satisfies Readonly<Record<string, Reading["ambiguity"]>>;

type Headers = Readonly<Record<string, string>>;
type NameAndValue = readonly [name: string, value: string];

/**
 * What goes upstream, by names in lower case: repeated fields joined (RFC 9110 §5.3), and then as other
 * servers read them. Some take the first or the last of them, and some know names as
 * {@linkcode variableName} makes them.
 */
function headerReadings(fields: readonly Field[]): readonly [Headers, ...Headers[]] {
  const sent = fields.map(({ name, value }): NameAndValue => [name, decodeUtf8(value)]);
  const readings = repetitionReadings(sent);
  const renamed = sent.map(([name, value]): NameAndValue => [variableName(name), value])
    .filter(([name], i) => name !== sent[i]?.[0]);
  if (renamed.length === 0) return readings;
  // Beside the names as they were sent, which a rule may ask for.
  return [...readings, ...repetitionReadings([...sent, ...renamed])];
}

/** All values of a field, and where there is more than one, its first and its last. */
function repetitionReadings(fields: readonly NameAndValue[]): readonly [Headers, ...Headers[]] {
  const joined = new Map<string, string>();
  for (const [name, value] of fields) {
    const before = joined.get(name);
    joined.set(name, before === undefined ? value : `${before}, ${value}`);
  }
  const all = headersOf(joined);
  if (joined.size === fields.length) return [all];
  return [all, headersOf(new Map(fields.toReversed())), headersOf(new Map(fields))];
}

/** A null prototype: `constructor` and the like are fields only when they were sent. */
function headersOf(fields: ReadonlyMap<string, string>): Headers {
  const headers: Record<string, string> = Object.create(null);
  for (const [name, value] of fields) headers[name] = value;
  return headers;
}
