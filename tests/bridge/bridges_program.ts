/**
 * The real `Bridges` as a program, to run inside a lab machine: prints its process id, then reads
 * one {@linkcode Call} a line from standard input and answers each with one {@linkcode Answer}.
 */
import { createInterface } from "node:readline";
import process from "node:process";
import { Bridges, type BridgesOptions } from "../../lib/bridge/bridge.ts";
import type { DirectTarget } from "../../lib/bridge/direct.ts";
import type { GrantRequest } from "../../lib/bridge/grants.ts";
import type { DirectAsk } from "../../lib/bridge/opener.ts";
import type { Listening, Segment } from "../../lib/bridge/segment.ts";
import { OutcallError } from "../../lib/errors.ts";

/** What an answer opens, the rules' part being settled. */
export interface DirectRequest extends Omit<DirectAsk, "targets"> {
  readonly targets: readonly Omit<DirectTarget, "agent">[];
}

/** One call of a method. */
export type Call =
  | {
    readonly method:
      | "status"
      | "up"
      | "close"
      | "segments"
      | "nextFreeName";
  }
  | { readonly method: "repair"; readonly withTables: boolean }
  | { readonly method: "attach" | "detach"; readonly segment: Segment }
  | { readonly method: "grant"; readonly request: GrantRequest }
  | { readonly method: "revoke"; readonly id: string }
  | { readonly method: "flushGrants" }
  | { readonly method: "openDirect"; readonly requests: readonly DirectRequest[] }
  /** Keeps what follows from these names. */
  | { readonly method: "reviewDirect"; readonly hosts: readonly string[] }
  | { readonly method: "open"; readonly listening: Listening }
  | { readonly method: "down"; readonly attached: readonly string[] };

/** An error as a test compares it. */
export interface Failure {
  readonly status: number;
  readonly code: string;
  readonly message: string;
  readonly hint?: string;
}

/** What came of a call. */
export type Answer = { readonly result: unknown } | { readonly failure: Failure };

function perform(bridges: Bridges, call: Call): unknown {
  switch (call.method) {
    case "attach":
    case "detach":
      return bridges[call.method](call.segment);
    case "repair":
      return bridges.repair(call.withTables);
    case "grant":
      return bridges.openings.grant([call.request]).then(([grant]) => grant);
    case "openDirect":
      return Promise.all(
        call.requests.map(({ targets, ...ask }) =>
          bridges.openings.openDirect({ ...ask, targets: () => targets })
        ),
      );
    case "reviewDirect":
      return bridges.openings.reviewDirect((grant) =>
        grant.hosts.some((host) => call.hosts.includes(host))
      );
    case "revoke":
      return bridges.openings.revoke(call.id);
    case "flushGrants":
      return bridges.openings.flush();
    case "open":
      return bridges.open(call.listening);
    case "down":
      return bridges.down(() => Promise.resolve(call.attached));
    default:
      return bridges[call.method]();
  }
}

async function answer(bridges: Bridges, call: Call): Promise<Answer> {
  try {
    return { result: await perform(bridges, call) ?? null };
  } catch (error) {
    if (!(error instanceof OutcallError)) throw error;
    const { status, code, message, hint } = error;
    return { failure: { status, code, message, ...hint === undefined ? {} : { hint } } };
  }
}

if (import.meta.main) {
  const options: BridgesOptions = JSON.parse(Deno.args[0] ?? "");
  const bridges = new Bridges(options);
  console.log(Deno.pid);
  for await (const line of createInterface({ input: process.stdin })) {
    const call: Call = JSON.parse(line);
    console.log(JSON.stringify(await answer(bridges, call)));
  }
}
