/**
 * `deno task bench [SUITE] [--json]`: measures Outcall and real peers side by side in one run. Suites:
 * policy, dns, proxy, agent, record, churn, kernel, fuzz-dns, fuzz-proxy. A table for people, or one
 * JSON object a line.
 */
import { agentSuite } from "./agent.ts";
import { churnSuite } from "./churn.ts";
import { dnsSuite } from "./dns.ts";
import { fuzzSuite } from "./fuzz.ts";
import { fuzzDnsSuite } from "./fuzz_dns.ts";
import { kernelSuite } from "./kernel.ts";
import { policySuite } from "./policy.ts";
import { proxySuite } from "./proxy.ts";
import { recordSuite } from "./record.ts";
import type { BenchResult, Suite } from "./result.ts";

const SUITES: Readonly<Record<string, Suite>> = {
  policy: policySuite,
  dns: dnsSuite,
  proxy: proxySuite,
  agent: agentSuite,
  "fuzz-proxy": fuzzSuite,
  "fuzz-dns": fuzzDnsSuite,
  record: recordSuite,
  churn: churnSuite,
  kernel: kernelSuite,
};

function figure(value: number): string {
  return value.toLocaleString("en", { maximumFractionDigits: value < 100 ? 2 : 0 });
}

function printTable(results: readonly BenchResult[]): void {
  const header = ["suite", "case", "unit", "better", "ours", "peers", "ratio"];
  const rows = results.map((r) => [
    r.suite,
    r.case,
    r.unit,
    r.better,
    figure(r.ours),
    Object.entries(r.peers).map(([name, value]) => `${name} ${figure(value)}`).join(", ") || "-",
    r.ratio === null ? "-" : r.ratio.toFixed(2),
  ]);
  const widths = header.map((title, i) =>
    Math.max(title.length, ...rows.map((row) => (row[i] ?? "").length))
  );
  for (const row of [header, ...rows]) {
    console.log(row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join("  ").trimEnd());
  }
}

async function main(args: readonly string[]): Promise<number> {
  const json = args.includes("--json");
  const asked = args.filter((arg) => arg !== "--json");
  const unknown = asked.find((name) => !(name in SUITES));
  if (unknown !== undefined) {
    console.error(
      `error: unknown suite "${unknown}"; there are: ${Object.keys(SUITES).join(", ")}`,
    );
    return 2;
  }
  const results: BenchResult[] = [];
  for (const [name, suite] of Object.entries(SUITES)) {
    if (asked.length > 0 && !asked.includes(name)) continue;
    await suite(
      (result) => {
        if (json) console.log(JSON.stringify(result));
        else results.push(result);
      },
      (line) => console.error(`${name}: ${line}`),
    );
  }
  if (!json) printTable(results);
  return 0;
}

if (import.meta.main) {
  try {
    Deno.exit(await main(Deno.args));
  } catch (thrown) {
    console.error(`error: ${thrown instanceof Error ? thrown.message : String(thrown)}`);
    Deno.exit(1);
  }
}
