/** The facts of a dry run, from JSON: checked strictly, and normalised as the enforcing layers do. */
import { z } from "zod";
import { RecordType, typeName, typeNumber } from "../dns/codes.ts";
import { Hostname, parseHost } from "../net/host.ts";
import { Ip } from "../net/ip.ts";
import type { RequestSpec } from "../rules/request.ts";
import { type Facts, type Layer, LAYERS } from "../rules/types.ts";

const hostname = z.string().transform((text, context) => {
  const host = parseHost(text);
  if (host === null) {
    context.addIssue(`"${text}" is not a hostname or address`);
    return z.NEVER;
  }
  return host instanceof Hostname ? host.name : host.text;
});

const address = z.string().transform((text, context) => {
  const ip = Ip.parse(text);
  if (ip === null) {
    context.addIssue(`"${text}" is not an IP address`);
    return z.NEVER;
  }
  return ip.text;
});

const headers = z.record(z.string(), z.string()).transform((record) =>
  Object.fromEntries(Object.entries(record).map(([name, value]) => [name.toLowerCase(), value]))
);

/** A DNS record type by its mnemonic, or in the form `TYPE65` (RFC 3597 §5). */
const recordTypeNumber = z.string().transform((text, context) => {
  const type = typeNumber(text.toUpperCase());
  if (type !== null) return type;
  context.addIssue(`"${text}" is not a record type, such as AAAA or TYPE65`);
  return z.NEVER;
});

/** The same as rules see it. */
const recordType = recordTypeNumber.transform(typeName);

/** A DNS name; an address is not one. */
const parsedName = z.string().transform((text, context) => {
  const host = Hostname.parse(text);
  if (host === null) {
    context.addIssue(`"${text}" is not a hostname`);
    return z.NEVER;
  }
  return host;
});

const dnsName = parsedName.transform(({ name }) => name);

const strings = z.array(z.string()).readonly();

/** What is known about the attempt; what is absent is unknown. */
const facts = z.strictObject({
  network: z.strictObject({
    hostname: hostname.exactOptional(),
    ip: address.exactOptional(),
    port: z.int().min(1).max(65_535).exactOptional(),
    protocol: z.enum(["tcp", "udp"]).exactOptional(),
  }).exactOptional(),
  http: z.strictObject({
    method: z.string().transform((text) => text.toUpperCase()).exactOptional(),
    path: z.string().startsWith("/").exactOptional(),
    host: hostname.exactOptional(),
    headers: headers.exactOptional(),
    body_size: z.int().min(0).exactOptional(),
  }).exactOptional(),
  dns: z.strictObject({
    query: dnsName.exactOptional(),
    record_type: recordType.exactOptional(),
  }).exactOptional(),
  agent: z.strictObject({ name: z.string().exactOptional() }).exactOptional(),
  docker: z.strictObject({
    image: z.string().exactOptional(),
    command: strings.exactOptional(),
    volumes: strings.exactOptional(),
    env_keys: strings.exactOptional(),
    capabilities: strings.exactOptional(),
  }).exactOptional(),
  run: z.strictObject({
    tool: z.string().exactOptional(),
    args: strings.exactOptional(),
    flags: strings.exactOptional(),
    cwd: z.string().exactOptional(),
    context: z.record(z.string(), z.unknown()).exactOptional(),
  }).exactOptional(),
}) satisfies z.ZodType<Facts>;

/** `POST /api/v1/rule/evaluate`; without `layer`, {@linkcode layerOf} picks it. */
export const evaluateRequest = z.strictObject({
  context: facts,
  layer: z.enum(LAYERS).optional(),
});

/** `POST /api/v1/rule/test` */
export const expressionRequest = z.strictObject({ expression: z.string(), context: facts });

/** `POST /api/v1/rules/explain`: a request as policy tests write it; exactly one of its kinds. */
export const explainRequest = z.strictObject({
  url: z.string().exactOptional(),
  method: z.string().exactOptional(),
  headers: headers.exactOptional(),
  body_size: z.int().min(0).exactOptional(),
  dns: z.string().exactOptional(),
  record_type: recordType.exactOptional(),
  connect: z.string().exactOptional(),
  direct: z.string().exactOptional(),
  tool: z.string().exactOptional(),
  args: strings.exactOptional(),
  cwd: z.string().exactOptional(),
  agent: z.string().exactOptional(),
  address: address.exactOptional(),
}) satisfies z.ZodType<RequestSpec>;

/** The layer that would judge an attempt of which this is known. */
export function layerOf(facts: Facts): Layer {
  if (facts.run !== undefined) return "agent";
  if (facts.docker !== undefined) return "container";
  if (facts.dns !== undefined) return "dns";
  if (facts.http !== undefined && facts.http.method !== "CONNECT") return "http";
  return "connect";
}

/** `GET /api/v1/dns/test`; without `agent`, a container that Docker does not know. */
export const dnsTestQuery = z.strictObject({
  name: parsedName,
  type: recordTypeNumber.default(RecordType.A),
  agent: z.string().default(""),
});
