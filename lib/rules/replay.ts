/**
 * Recorded attempts, judged again: what a record says of an attempt, as the layers met it. What records
 * never hold (headers, sizes, arguments) is unknown then, and can make the difference.
 */
import { Ip } from "../net/ip.ts";
import { type RecordedAttempt, recordedFacts } from "./diff.ts";
import { dnsSteps, grantFacts, type Step, stepsOf } from "./request.ts";

/** Ports of the two schemes: an agent's question does not say which one it was about. */
const HTTPS_PORT = 443;

/** What a record is about, in the terms of rules. */
export type Subject =
  | { readonly kind: "lookup"; readonly host: string; readonly recordType: string }
  /** A CONNECT. */
  | { readonly kind: "tunnel"; readonly host: string; readonly port: number }
  /** Plain HTTP. */
  | {
    readonly kind: "request";
    readonly host: string;
    readonly port: number;
    readonly method: string;
    readonly path: string;
  }
  /** Past the proxy, to an address that DNS told. */
  | {
    readonly kind: "direct";
    readonly host: string;
    readonly port: number;
    readonly protocol: "tcp" | "udp";
  }
  | { readonly kind: "tool"; readonly tool: string }
  | { readonly kind: "file"; readonly path: string };

/** What a record is about; null where it is nothing that rules for agents could name. */
export function subjectOf({ layer, agent, attempt }: RecordedAttempt): Subject | null {
  if (agent === null || layer === "kernel" || layer === "container") return null;
  const { host, port, method, path, recordType, tool } = attempt;
  if (host === undefined) {
    if (layer !== "agent") return null;
    if (tool !== undefined) return { kind: "tool", tool };
    return path === undefined ? null : { kind: "file", path };
  }
  if (layer === "grant") {
    const { protocol } = attempt;
    if (port === undefined || (protocol !== "tcp" && protocol !== "udp")) return null;
    return { kind: "direct", host, port, protocol };
  }
  if (layer === "dns") {
    return recordType === undefined ? null : { kind: "lookup", host, recordType };
  }
  if (port === undefined) return null;
  const isTunnel = layer === "agent"
    ? method === undefined || port === HTTPS_PORT
    : method === "CONNECT";
  if (isTunnel) return { kind: "tunnel", host, port };
  return method === undefined || path === undefined
    ? null
    : { kind: "request", host, port, method, path };
}

/** Whether a host may stand in rules as it is: what agents ask about need not be a host at all. */
function isHost(host: string): boolean {
  return stepsOf({ connect: Ip.parse(host)?.version === 6 ? `[${host}]` : host }).ok;
}

/**
 * The layers that a recorded attempt met, up to the one that decided; empty where no policy could be
 * asked, as for packets that the kernel dropped.
 */
export function walkOf(record: RecordedAttempt): readonly Step[] {
  const subject = subjectOf(record);
  const facts = recordedFacts(record);
  if (subject === null || facts?.agent === undefined || record.layer === "kernel") return [];
  const { agent } = facts;
  if (subject.kind === "tool") {
    return [{ layer: "agent", facts: { run: { tool: subject.tool }, agent } }];
  }
  if (subject.kind === "file") {
    const args = [subject.path];
    return [{ layer: "agent", facts: { run: { tool: "file", args }, agent } }];
  }
  const { host } = subject;
  if (!isHost(host)) return [];
  if (subject.kind === "lookup") return dnsSteps(host, subject.recordType, agent);
  if (subject.kind === "direct") {
    const { port, protocol } = subject;
    const connection = { host, port, protocol, agentName: agent.name ?? "" };
    const grant = grantFacts({ ...connection, ip: record.attempt.address });
    return [...dnsSteps(host, "A", agent), { layer: "grant", facts: grant }];
  }
  const layers = layersOf(subject, record);
  const { ip: _ip, ...network } = facts.network ?? {};
  const { path: _path, ...http } = facts.http ?? {};
  const ofTunnel = subject.kind === "tunnel";
  const known = {
    network: { ...network, ...(Ip.parse(host) === null ? {} : { ip: host }) },
    http: ofTunnel ? { ...http, method: "CONNECT" } : facts.http ?? {},
    agent,
  };
  return [
    ...dnsSteps(host, "A", agent),
    ...layers.map((layer) =>
      layer === "dial"
        ? { layer, facts: { ...known, network: { ...facts.network } } }
        : { layer, facts: known }
    ),
  ];
}

/** The layers behind DNS. */
function layersOf(
  { kind }: Subject,
  { layer, attempt }: RecordedAttempt,
): readonly ("connect" | "sni" | "http" | "dial")[] {
  const first = kind === "tunnel" ? ["connect", "sni"] as const : ["http"] as const;
  if (layer === "connect") return ["connect"];
  // A name that was not resolved has no address to be judged.
  return layer === "dial" && attempt.address !== undefined ? [...first, "dial"] : first;
}
