/** A host API over the real policy, with rule files of its own. */
import { type Decision, DecisionLog } from "../../lib/decision.ts";
import type { HostServices } from "../../lib/api/services.ts";
import { ActivePolicy } from "../../lib/policy.ts";
import { matches } from "../../lib/record/filter.ts";
import { type DecisionStats, DecisionTable, type StatsQuery } from "../../lib/record/table.ts";
import type { Facts, Layer } from "../../lib/rules/types.ts";
import { databasePath, openDatabase } from "../../lib/store/database.ts";
import { serveHost, withDirectory } from "./running.ts";
import { healthy, services } from "./services.ts";

const SOURCE = "10.200.0.2";

/** A served policy. */
export interface ServedPolicy {
  /** Of the API's socket. */
  readonly path: string;
  /** A directory that goes with the test. */
  readonly directory: string;
  /** Where its rule files are. */
  readonly rulesDir: string;
  readonly decisions: DecisionLog;
  /** Judges and records an attempt as an enforcement point does. */
  attempt(layer: Layer, facts: Facts): Decision;
}

/** Writes rule files into a new directory. */
export function writeRules(dir: string, files: Readonly<Record<string, string>>): void {
  Deno.mkdirSync(dir, { mode: 0o755 });
  for (const [name, text] of Object.entries(files)) {
    Deno.writeTextFileSync(`${dir}/${name}`, text, { mode: 0o644 });
    Deno.chmodSync(`${dir}/${name}`, 0o644);
  }
  Deno.chmodSync(dir, 0o755);
}

/** What the history would count, had it everything. */
function statsOf(directory: string, log: DecisionLog, query: StatsQuery): DecisionStats {
  openDatabase(directory).close();
  const table = new DecisionTable(databasePath(directory));
  const rows = log.since(0).map(({ sequence, decision }) => ({
    sequence,
    record: JSON.stringify(decision),
  }));
  table.write(rows);
  const stats = table.stats(query);
  table.close();
  return stats;
}

/** Runs `test` against an API over these rule files; `others` stand in for the rest of the daemon. */
export async function withPolicy(
  files: Readonly<Record<string, string>>,
  test: (served: ServedPolicy) => Promise<void>,
  others: Partial<HostServices> = {},
): Promise<void> {
  await withDirectory(async (directory) => {
    const path = `${directory}/host.sock`;
    const rulesDir = `${directory}/rules.d`;
    writeRules(rulesDir, files);
    const policy = new ActivePolicy(rulesDir, true);
    await policy.reload();
    const decisions = new DecisionLog();
    decisions.addSink(policy.count);
    const attempt = (layer: Layer, facts: Facts): Decision => {
      const { verdict, generation } = policy.judge(layer, facts);
      return decisions.record({
        layer,
        generation,
        agent: { name: facts.agent?.name ?? "", address: SOURCE, network: "outcall-agent-net" },
        source: SOURCE,
        attempt: layer === "dns"
          ? { host: facts.dns?.query ?? "", recordType: facts.dns?.record_type ?? "" }
          : {
            host: facts.http?.host ?? "",
            port: facts.network?.port ?? 0,
            method: facts.http?.method ?? "",
          },
        verdict: verdict.allowed ? "allow" : "block",
        reason: verdict.reason,
        rule: verdict.rule,
      });
    };
    const plain = services(healthy(), { calls: [] });
    const server = await serveHost(path, {
      ...plain,
      ...others,
      policy,
      decisions: {
        ...plain.decisions,
        recent: (limit) => decisions.recent(limit),
        find: (id) => Promise.resolve(decisions.find(id)),
        query: (query) => {
          const wanted = decisions.recent().filter((decision) => matches(query, decision));
          return Promise.resolve({ decisions: wanted.slice(-query.limit), incomplete: null });
        },
        stats: (query) => Promise.resolve(statsOf(directory, decisions, query)),
      },
    });
    try {
      await test({ path, directory, rulesDir, decisions, attempt });
    } finally {
      await server.close();
    }
  });
}
