/** `outcall dns …`: the DNS filter (S007-IF-004, S007-IF-005). */
import type { CommandUnknownOpts } from "@commander-js/extra-typings";
import type { DnsTestResult } from "../api/replies.ts";
import type { DnsCacheStats } from "../api/services.ts";
import { labels, table } from "./render.ts";
import type { Run } from "./run.ts";

/** Adds the commands to `program`. */
export function addDnsCommands(program: CommandUnknownOpts, run: Run): void {
  const dns = program.command("dns").description("the DNS filter");

  dns.command("status").description("show listeners, upstreams and counters").action(() =>
    run(async (client) => {
      const status = await client.dnsStatus();
      const listen = status.listen_addresses.map((ip) => `${ip}:${status.listen_port}`);
      const { queries_total, queries_allowed, queries_blocked } = status;
      return {
        json: status,
        lines: status.running
          ? labels(16, [
            ["DNS Filter", "active"],
            ["Listen", listen.join(", ")],
            ["Upstreams", status.upstreams.join(", ")],
            ["Cache", `${status.cache_entries} entries`],
            [
              "Queries",
              `${queries_total} total (${queries_allowed} allowed, ${queries_blocked} blocked)`,
            ],
          ])
          : labels(16, [["DNS Filter", "inactive (bridge not up)"]]),
      };
    })
  );

  dns.command("test <hostname>")
    .description("show what a query would get, and by which rule; sends nothing")
    .option("--type <type>", "record type", "A")
    .option("--agent <name>", "as the agent of this name")
    .action((hostname, options) =>
      run(async (client) => {
        const result = await client.dnsTest(hostname, options.type, options.agent);
        return {
          json: result,
          lines: labels(16, [
            ["Hostname", result.hostname],
            ["Record type", result.record_type],
            ["Decision", result.decision === "allow" ? "ALLOW" : "BLOCK"],
            ["Matched rule", ruleText(result)],
            ...(isByPolicy(result) ? [] : [["Reason", result.reason] as const]),
            ["Answer", answerText(result)],
            ...(options.agent === undefined
              ? []
              : [["Agent", agentText(options.agent, result)] as const]),
          ]),
        };
      })
    );

  dns.command("cache")
    .description("show the cache's counters")
    .option("--entries", "list the cached names too", false)
    .action((options) =>
      run(async (client) => {
        const cache = await client.dnsCache(options.entries);
        const columns = [
          { header: "HOSTNAME", width: 32 },
          { header: "TYPE", width: 6 },
          { header: "TTL", width: 0 },
        ];
        const rows = cache.entries.map((entry) => [
          entry.hostname,
          entry.record_type,
          `${entry.ttl_remaining_secs}s${entry.dnssec === true ? " (DNSSEC)" : ""}`,
        ]);
        return {
          json: cache,
          lines: [
            ...statistics(cache.stats),
            ...(options.entries ? ["", ...table(columns, rows)] : []),
          ],
        };
      })
    );

  dns.command("flush").description("empty the cache").action(() =>
    run(async (client) => {
      const result = await client.dnsFlush();
      return {
        json: result,
        lines: [`DNS cache flushed (${result.entries_flushed} entries cleared).`],
      };
    })
  );
}

/** Whether the matched rule, or the default policy, says it all. */
function isByPolicy({ reason }: DnsTestResult): boolean {
  return reason === "rule" || reason === "default";
}

function ruleText({ matched_rule: rule, file, reason }: DnsTestResult): string {
  if (rule !== null) return `${rule} (${file})`;
  return reason === "default" ? "(default policy)" : "(none)";
}

function answerText({ decision, rcode, cached, type_passes }: DnsTestResult): string {
  const answer = cached ? `${rcode}, from the cache` : rcode ?? "as an upstream says";
  return decision === "allow" && !type_passes ? `${answer}, without such records` : answer;
}

function agentText(name: string, { addresses }: DnsTestResult): string {
  return addresses.length === 0
    ? `${name} (none of that name is attached)`
    : `${name} (${addresses.join(", ")})`;
}

function statistics({ entries, max_entries, hits, misses, evictions }: DnsCacheStats): string[] {
  const asked = hits + misses;
  return labels(16, [
    ["Entries", `${entries} / ${max_entries}`],
    ["Hits", hits],
    ["Misses", misses],
    ["Evictions", evictions],
    ["Hit rate", asked === 0 ? "N/A" : `${(100 * hits / asked).toFixed(1)}%`],
  ]);
}
