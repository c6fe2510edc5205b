/**
 * The policy engine, side by side with a linear scan by the CEL library over the same rules.
 *
 * Both sides know every fact; ours also decides what is not known and names the rule. The CEL library
 * gets its conditions parsed and checked beforehand, and its facts in its own types.
 */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { ParseResult } from "@marcbachmann/cel-js";
import { RE2JS } from "re2js";
import { parse as parseYaml } from "yaml";
import { compilePolicy } from "../../lib/rules/compile.ts";
import { decide } from "../../lib/rules/decide.ts";
import { compileCondition } from "../../lib/rules/evaluate.ts";
import { celEnvironment } from "../../lib/rules/environment.ts";
import { PENDING_FACTS } from "../../lib/rules/language.ts";
import { LIMITS } from "../../lib/rules/limits.ts";
import { Evaluation } from "../../lib/rules/outcome.ts";
import { compilePattern } from "../../lib/rules/pattern.ts";
import { buildPolicy, type Policy, type RuleData } from "../../lib/rules/policy.ts";
import type { RuleFile } from "../../lib/rules/read.ts";
import type { Facts } from "../../lib/rules/types.ts";
import { compare, type Report } from "./result.ts";

const SIZES = [10, 1000, 10_000, 100_000];
/** Long enough for the timer and the optimiser, short enough for people. */
const BATCH_MS = 60;
const BATCHES = 5;

/** Nanoseconds that one call of `run` takes: the median of several batches, after a warm-up. */
function nsPerCall(run: () => unknown): number {
  let calls = 1;
  const batch = (count: number): number => {
    const start = performance.now();
    for (let i = 0; i < count; i++) run();
    return performance.now() - start;
  };
  for (let ms = batch(calls); ms < BATCH_MS; ms = batch(calls)) {
    calls = ms < 1 ? calls * 10 : Math.ceil(calls * BATCH_MS * 1.2 / ms);
  }
  const times = Array.from({ length: BATCHES }, () => batch(calls) * 1e6 / calls);
  return times.toSorted((a, b) => a - b)[BATCHES >> 1] ?? 0;
}

/** The rules that people write, in the proportions that they write them. */
function condition(i: number): string {
  const host = `api${i}.service${i % 97}.example`;
  switch (i % 10) {
    case 0:
      return `http.host.under("service${i}.example") && agent.name == "web"`;
    case 1:
      return `http.host in ["${host}", "alt-${host}"] && http.method in ["GET", "HEAD"]`;
    case 2:
      return `dns.query == "${host}" || http.host == "${host}"`;
    default:
      return `http.host == "${host}" && http.method == "GET" && http.path.startsWith("/v1/")`;
  }
}

/** A few rules about every host, as most policies have. */
const BLOCKS = [
  'http.path.contains("/../")',
  'http.method == "TRACE"',
  'agent.name == "quarantine"',
];

const BLOCK_PRIORITY = 10;

function ruleFiles(count: number, from: number): RuleFile[] {
  const perFile = 5000;
  const files: RuleFile[] = [];
  for (let start = from; start < from + count; start += perFile) {
    const lines = ['version: "1"', "rules:"];
    for (let i = start; i < Math.min(start + perFile, from + count); i++) {
      lines.push(`  - id: r${i}`, `    condition: '${condition(i)}'`, "    action: allow");
    }
    files.push({ path: `/rules/${start}.yaml`, text: `${lines.join("\n")}\n` });
  }
  return files;
}

function blockFile(): RuleFile {
  const rules = BLOCKS.map((text, i) => ({
    id: `block${i}`,
    condition: text,
    action: "block",
    priority: BLOCK_PRIORITY,
  }));
  return { path: "/rules/00-blocks.yaml", text: JSON.stringify({ version: "1", rules }) };
}

function compiled(files: readonly RuleFile[]): Policy {
  const result = compilePolicy(files, { generation: 1 });
  if (!result.ok) throw new Error(result.errors[0]?.message ?? "the rules are wrong");
  return result.policy;
}

/** A policy of any size: the loader's limit is on what one directory may hold, not on the engine. */
function policyOf(count: number): Policy {
  const rules: RuleData[] = [...compiled([blockFile()]).data.rules];
  const share = LIMITS.rules;
  for (let from = 0; from < count; from += share) {
    rules.push(...compiled(ruleFiles(Math.min(share, count - from), from)).data.rules);
  }
  return buildPolicy({ generation: 1, rules });
}

/** A CEL engine that scans: what one writes with the library alone. */
function scannerOf(policy: Policy): (facts: Record<string, unknown>) => boolean {
  const environment = celEnvironment();
  const rules = policy.rules.map(({ condition: text, action }) => {
    const evaluate: ParseResult = environment.parse(text);
    evaluate.check();
    return { evaluate, allowed: action === "allow" };
  });
  return (facts) => {
    for (const { evaluate, allowed } of rules) {
      try {
        if (evaluate(facts) === true) return allowed;
      } catch {
        // No match.
      }
    }
    return false;
  };
}

function requestTo(
  host: string,
  method: string,
  path: string,
): Required<Pick<Facts, "network" | "http" | "dns" | "agent">> {
  return {
    network: { hostname: host, ip: "93.184.216.34", port: 80, protocol: "tcp" },
    http: { method, path, host, headers: { accept: "*/*" }, body_size: 0 },
    dns: { query: host, record_type: "A" },
    agent: { name: "web" },
  };
}

/** The library's ints are bigints. */
function celContext(facts: ReturnType<typeof requestTo>): Record<string, unknown> {
  return {
    ...facts,
    network: { ...facts.network, port: 80n },
    http: { ...facts.http, body_size: 0n },
  };
}

function conditionCase(report: Report): void {
  const text =
    'http.host == "api.openai.com" && http.method == "GET" && http.path.startsWith("/v1/")';
  const facts = requestTo("api.openai.com", "GET", "/v1/models");
  const rule = compiled([{
    path: "/rules/one.yaml",
    text: JSON.stringify({
      version: "1",
      rules: [{ id: "one", condition: text, action: "allow" }],
    }),
  }]).rules[0];
  if (rule === undefined) throw new Error("the rule is gone");
  const environment = celEnvironment();
  const theirs = environment.parse(text);
  theirs.check();
  const context = celContext(facts);
  const ours = compileCondition(rule.expr);
  report(compare({
    suite: "policy",
    case: "one typical condition",
    unit: "ns",
    better: "lower",
    ours: nsPerCall(() => ours(new Evaluation(facts, PENDING_FACTS.http))),
    peers: { "CEL library": nsPerCall(() => theirs(context)) },
  }));
}

function decisionCases(report: Report, progress: (line: string) => void): void {
  for (const size of SIZES) {
    progress(`${size} rules`);
    const policy = policyOf(size);
    const scan = scannerOf(policy);
    // The middle of the set is the fair place for a scan.
    const middle = Math.max(3, Math.floor(size / 20) * 10 + 3);
    const host = `api${middle}.service${middle % 97}.example`;
    const requests = {
      hit: requestTo(host, "GET", "/v1/models"),
      miss: requestTo(host, "POST", "/v1/models"),
      deny: requestTo("nobody.knows.example", "GET", "/v1/models"),
    };
    for (const [kind, facts] of Object.entries(requests)) {
      const context = celContext(facts);
      const expected = kind === "hit";
      if (decide(policy, "http", facts).allowed !== expected || scan(context) !== expected) {
        throw new Error(`${size} rules, ${kind}: the verdict is wrong`);
      }
      report(compare({
        suite: "policy",
        case: `decision, ${size} rules, ${kind}`,
        unit: "ns",
        better: "lower",
        ours: nsPerCall(() => decide(policy, "http", facts)),
        peers: { "CEL library, linear scan": nsPerCall(() => scan(context)) },
      }));
    }
  }
}

function loadCases(report: Report): void {
  const files = ruleFiles(LIMITS.rules, 0);
  const milliseconds = (run: () => unknown): number => {
    const times = Array.from({ length: 3 }, () => {
      const start = performance.now();
      run();
      return performance.now() - start;
    });
    return Math.min(...times);
  };
  const environment = celEnvironment();
  report(compare({
    suite: "policy",
    case: `load ${LIMITS.rules} rules`,
    unit: "ms",
    better: "lower",
    ours: milliseconds(() => compiled(files)),
    peers: {
      "yaml and CEL library, unchecked shape": milliseconds(() => {
        for (const { text } of files) {
          const { rules }: { rules: { condition: string }[] } = parseYaml(text);
          for (const rule of rules) environment.parse(rule.condition).check();
        }
      }),
    },
  }));
  report(compare({
    suite: "policy",
    case: `memory of ${LIMITS.rules} rules`,
    unit: "MB",
    better: "lower",
    ours: heapMegabytes(() => compiled(files)),
    peers: { "CEL library": heapMegabytes(() => scannerOf(compiled(files))) },
  }));
}

/** What `make` leaves on the heap. */
function heapMegabytes(make: () => unknown): number {
  setFlagsFromString("--expose-gc");
  const collect: unknown = runInNewContext("gc");
  if (typeof collect !== "function") throw new Error("the garbage collector cannot be called");
  collect();
  const before = Deno.memoryUsage().heapUsed;
  const made = make();
  collect();
  const after = Deno.memoryUsage().heapUsed;
  // Still used here, or it would have been collected.
  return made === undefined ? 0 : (after - before) / 1e6;
}

/** Conditions near the cost bound, and the facts that make them slow. */
const HOSTILE: readonly (readonly [string, Facts])[] = [
  ...["a", "/", "aB", "é", "𝒳"].flatMap((unit): [string, Facts][] => {
    const facts = { http: { path: `/${unit.repeat(Math.floor(8191 / unit.length))}` } };
    return [
      ['http.path.lowerAscii().contains("aaab") || http.path.upperAscii().contains("AAAB")', facts],
      ['http.path.split("/").exists(s, s == "..")', facts],
      ['http.path.matches("(a|b)*c[ab]{6}") || http.path.size() > 9000', facts],
    ];
  }),
  [
    'run.args.exists(a, a.matches("^--?[a-z]+=.*$")) || run.args.exists(a, a == "--force")',
    { run: { args: new Array<string>(1024).fill(`-${"a".repeat(60)}`) } },
  ],
  [
    'docker.volumes.all(v, v.startsWith("/") && !v.contains("aaab"))',
    { docker: { volumes: new Array<string>(1024).fill(`/${"a".repeat(60)}`) } },
  ],
  [
    "http.headers.exists(k, k.startsWith('x-')) || http.headers.all(k, k != 'cookie')",
    {
      http: { headers: Object.fromEntries(Array.from({ length: 250 }, (_, i) => [`h${i}`, "v"])) },
    },
  ],
];

function hostileCases(report: Report): void {
  const worstNs = Math.max(...HOSTILE.map(([text, facts]) => {
    const rules = [{ id: "hostile", condition: text, action: "block" }];
    const policy = compiled([{
      path: "/rules/hostile.yaml",
      text: JSON.stringify({ version: "1", rules }),
    }]);
    return nsPerCall(() => decide(policy, "dial", facts));
  }));
  report(compare({
    suite: "policy",
    case: "worst of the conditions near the cost bound, hostile input",
    unit: "us",
    better: "lower",
    ours: worstNs / 1000,
    peers: {},
  }));
  const source = "^/v1/[^/]+/(a|b)*[0-9]{3}$";
  const path = `/v1/x/${"ab".repeat(4000)}`;
  const ours = compilePattern(source);
  const theirs = RE2JS.compile(source);
  report(compare({
    suite: "policy",
    case: "pattern on 8 KB of hostile path",
    unit: "us",
    better: "lower",
    ours: nsPerCall(() => ours.test(path)) / 1000,
    peers: { RE2JS: nsPerCall(() => theirs.test(path)) / 1000 },
  }));
}

/** Measures all cases. */
export function policySuite(report: Report, progress: (line: string) => void): Promise<void> {
  progress("one condition");
  conditionCase(report);
  decisionCases(report, progress);
  progress("loading");
  loadCases(report);
  progress("hostile input");
  hostileCases(report);
  return Promise.resolve();
}
