/** Tries one thing and compares everything that can be observed with what was promised. */
import { type Decided, DecisionWatch, type RecordedDecision } from "../lab/decisions.ts";
import type { Lab } from "../lab/lab.ts";
import type { Machine } from "../lab/machine.ts";
import { attempt, InconclusiveError, positiveControl } from "../lab/probe.ts";
import type { Finished } from "../lab/process.ts";
import { nothing, type Seen } from "../lab/witness.ts";
import { proxyVariables } from "../lab/agent.ts";
import type { Attempt } from "./attempts.ts";

/** One row of the table. */
export interface Row {
  readonly title: string;
  readonly decided: string;
  readonly client: string;
  readonly server: string;
  /** What differs from the promise; empty when it was kept. */
  readonly broken: readonly string[];
}

/** Where the attempts are made. */
export interface Stage {
  readonly lab: Lab;
  readonly agent: Machine;
  /** The agent's address, as decisions name it. */
  readonly address: string;
  /** Where the agent's DNS filter and proxy are. */
  readonly gateway: string;
  /** Whether there is a daemon to ask for decisions. */
  readonly daemonRuns: boolean;
}

/** Runs the positive control where nothing may arrive, then the attempt. */
export async function tryPromise(stage: Stage, promised: Attempt): Promise<Row> {
  const { lab } = stage;
  const broken: string[] = [];
  if (!promised.allowed) {
    try {
      await positiveControl(
        lab,
        promised.control ?? promised.argv,
        promised.arrives,
        promised.receiver,
      );
    } catch (thrown) {
      if (!(thrown instanceof InconclusiveError)) throw thrown;
      broken.push(`inconclusive: ${thrown.message}`);
    }
  }
  const watch = await DecisionWatch.start(lab, stage.daemonRuns);
  const { client, seen } = await attempt(lab, {
    ...promised,
    client: stage.agent,
    env: promised.proxied ? proxyVariables(stage.gateway) : {},
  });
  const decided = await watch.decided(stage.address);
  const printed = promised.client.exec(`${client.stdout}\n${client.stderr}`);
  if (printed === null) broken.push(`the client should see ${promised.client.source}`);
  if (promised.allowed && nothing(seen)) broken.push("nothing arrived");
  if (!promised.allowed && !nothing(seen)) broken.push(`it arrived: ${arrivals(seen)}`);
  if (!decidedAsPromised(promised, decided)) {
    broken.push(`${promised.layer} should ${promised.allowed ? "allow" : "block"} it`);
  }
  return {
    title: promised.title,
    decided: describeDecided(promised, decided),
    client: printed?.[0] ?? lastLine(client),
    server: describeSeen(seen),
    broken,
  };
}

function deciding(promised: Attempt, { records }: Decided): RecordedDecision | undefined {
  const verdict = promised.allowed ? "allow" : "block";
  return records.find((record) => record.layer === promised.layer && record.verdict === verdict);
}

function decidedAsPromised(promised: Attempt, decided: Decided): boolean {
  if (promised.layer === "none") return true;
  if (promised.layer === "kernel") return decided.drops.length > 0;
  return deciding(promised, decided) !== undefined;
}

const REASONS: Readonly<Record<string, string>> = {
  default: "no rule allows it",
  port: "port not allowed by",
  sni_mismatch: "other server name than CONNECT",
  local_address: "an address of the host",
  restricted_address: "restricted address",
};

function describe(record: RecordedDecision): string {
  const { rule, reason } = record;
  const where = rule === null
    ? ""
    : `${rule.id} (${rule.file.slice(rule.file.lastIndexOf("/") + 1)}:${rule.line})`;
  const why = reason === "rule" ? where : `${REASONS[reason] ?? reason} ${where}`.trimEnd();
  return `${record.layer}: ${why}`;
}

function describeDecided(promised: Attempt, decided: Decided): string {
  if (promised.layer === "none") return "no daemon to ask";
  const record = deciding(promised, decided);
  if (record !== undefined) return describe(record);
  if (decided.drops.length > 0) return `kernel: ${decided.drops.join(", ")}`;
  return decided.records.map(describe).join(", ") || "nobody";
}

/** Everything that arrived, with senders and receivers. */
function arrivals({ receipts, packets }: Seen): string {
  return [
    ...packets.map((p) => `${p.packets} ${p.protocol} packets ${p.from} to ${p.to}:${p.port}`),
    ...receipts.map((r) => `${r.kind} ${r.from} to ${r.to}:${r.port}`),
  ].join(", ");
}

function lastLine(client: Finished): string {
  const text = client.stderr.trim() || client.stdout.trim();
  return text.slice(text.lastIndexOf("\n") + 1) || "nothing";
}

function describeSeen({ receipts, packets }: Seen): string {
  const request = receipts.findLast((receipt) => receipt.kind === "http");
  if (request !== undefined) return `${request.method} ${request.path}`;
  const question = receipts.find((receipt) => receipt.kind === "dns");
  if (question !== undefined) return `question ${question.recordType} ${question.name}`;
  if (receipts.length > 0) return `${receipts.map(({ kind }) => kind).join(", ")} connection`;
  const count = packets.reduce((sum, { packets }) => sum + packets, 0);
  return count > 0 ? `${count} packets` : "nothing";
}
