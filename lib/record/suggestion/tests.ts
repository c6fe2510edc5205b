/** Policy tests for a suggestion: what was seen, and what is near it and must stay blocked. */
import { ownDomain } from "../../rules/domain.ts";
import { literal } from "../../rules/draft.ts";
import type { Subject } from "../../rules/replay.ts";
import { type RequestSpec, stepsOf } from "../../rules/request.ts";
import type { Kind, Of } from "./attempts.ts";

/** A policy test of the suggestion. */
export interface Test {
  readonly request: RequestSpec;
  readonly expect: "allow" | "block";
}

function bracketed(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}

/** The attempt as a policy test would make it; null where that would be another one. */
export function requestOf(agent: string, subject: Subject): RequestSpec | null {
  switch (subject.kind) {
    case "lookup":
      return { dns: subject.host, record_type: subject.recordType, agent };
    case "direct":
      return null;
    case "tunnel":
      return { connect: `${bracketed(subject.host)}:${subject.port}`, agent };
    case "tool":
      return { tool: subject.tool, agent };
    case "file":
      return { tool: "file", args: [subject.path], agent };
    case "request": {
      const { host, port, method, path } = subject;
      const url = `http://${bracketed(host)}${port === 80 ? "" : `:${port}`}${path}`;
      const request = { url, method, agent };
      const steps = stepsOf(request);
      // A URL parser may read a path otherwise than the proxy that recorded it.
      const isSame = steps.ok && steps.steps.at(-1)?.facts.http?.path === path;
      return isSame ? request : null;
    }
  }
}

/** What must stay blocked, near what was seen: other agents, hosts, ports, methods and paths. */
export function neighbours(agent: string, kinds: readonly Kind[]): RequestSpec[] {
  const requests: RequestSpec[] = [{ connect: "not-observed.invalid:443", agent }];
  const first = <K extends Subject["kind"]>(kind: K): Of<K> | undefined =>
    kinds.map(({ subject }) => subject)
      .find((subject): subject is Of<K> => subject.kind === kind);
  const tunnel = first("tunnel");
  if (tunnel !== undefined) {
    const { host, port } = tunnel;
    const domain = ownDomain(host);
    requests.push(
      { connect: `${bracketed(host)}:${port}`, agent: "not-observed" },
      { connect: `${bracketed(host)}:22`, agent },
      ...(domain === null ? [] : [
        { connect: `not-observed.${host}:${port}`, agent },
        { connect: `not${domain}:${port}`, agent },
      ]),
    );
  }
  const plain = first("request");
  if (plain !== undefined) {
    const { host, port, path } = plain;
    const origin = `http://${bracketed(host)}${port === 80 ? "" : `:${port}`}`;
    requests.push(
      { url: `${origin}${path}`, method: "DELETE", agent },
      { url: `${origin}/not-observed`, method: plain.method, agent },
      { url: `https://${bracketed(host)}/`, agent },
    );
  }
  const lookup = first("lookup");
  if (lookup !== undefined) requests.push({ dns: `not-observed.${lookup.host}`, agent });
  if (first("tool") !== undefined) requests.push({ tool: "not-observed", agent });
  return requests;
}

/** The test as an item of `tests:`. */
export function testText({ request, expect }: Test): string {
  const fields = Object.entries(request).map(([name, value]: [string, unknown]) =>
    `${name}: ${
      Array.isArray(value) ? `[${value.map((item) => literal(String(item))).join(", ")}]` : literal(
        String(value),
      )
    }`
  );
  return `  - { ${[...fields, `expect: ${expect}`].join(", ")} }`;
}
