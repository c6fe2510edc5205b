/**
 * Rules that are sound and still not what their author meant: rules that can never match, rules that
 * another one hides, rules that open more than they seem to. All findings are warnings.
 */
import { Hostname, parseHost } from "../net/host.ts";
import { costNs } from "./cost.ts";
import type { Diagnostic } from "./diagnostic.ts";
import { implies } from "./implies.ts";
import { hostsOf } from "./index.ts";
import { type Expr, mentions, parts } from "./ir.ts";
import { FACT_NAMES, type FactName, PENDING_FACTS } from "./language.ts";
import { LIMITS } from "./limits.ts";
import { CAN_BE_TRUE, Evaluation } from "./outcome.ts";
import type { CompiledRule, Policy } from "./policy.ts";
import { MAX_OPENINGS } from "./ports.ts";
import { DEFAULT_BODY_BYTES, type Facts } from "./types.ts";

/** A name that no rule can be about. */
const PROBE_HOST = "probe.outcall.invalid";

/** Names and addresses of public DNS-over-HTTPS and DNS-over-TLS resolvers. */
const ENCRYPTED_RESOLVERS = [
  "1.0.0.1",
  "1.1.1.1",
  "149.112.112.112",
  "208.67.222.222",
  "8.8.4.4",
  "8.8.8.8",
  "9.9.9.9",
  "94.140.14.14",
  "chrome.cloudflare-dns.com",
  "cloudflare-dns.com",
  "dns.adguard-dns.com",
  "dns.google",
  "dns.mullvad.net",
  "dns.nextdns.io",
  "dns.quad9.net",
  "doh.cleanbrowsing.org",
  "doh.dns.sb",
  "doh.opendns.com",
  "freedns.controld.com",
  "mozilla.cloudflare-dns.com",
  "one.one.one.one",
];

/** Domains under which anybody can have a name, and with it a server. */
const SHARED_DOMAINS = [
  "amazonaws.com",
  "appspot.com",
  "azureedge.net",
  "azurewebsites.net",
  "blob.core.windows.net",
  "cloudfront.net",
  "cloudfunctions.net",
  "firebaseapp.com",
  "fly.dev",
  "github.io",
  "gitlab.io",
  "herokuapp.com",
  "netlify.app",
  "ngrok-free.app",
  "ngrok.io",
  "onrender.com",
  "pages.dev",
  "r2.dev",
  "run.app",
  "s3.amazonaws.com",
  "trycloudflare.com",
  "vercel.app",
  "web.app",
  "workers.dev",
];

const HOST_FACTS: ReadonlySet<string> = new Set(["network.hostname", "http.host", "dns.query"]);

/** What any later layer of a network request, or another agent, may bring. */
const OPEN_FACTS: ReadonlySet<FactName> = new Set([
  ...PENDING_FACTS.dns,
  "agent.name",
  "dns.record_type",
]);
/** The same inside a tunnel, where nobody sees the request. */
const TUNNEL_FACTS: ReadonlySet<FactName> = new Set<FactName>([
  "network.ip",
  "network.port",
  "network.protocol",
  "agent.name",
]);
const EVERY_FACT: ReadonlySet<FactName> = new Set(FACT_NAMES);

/** Rules before a rule that are looked at for hiding it; more would make linting quadratic. */
const MAX_HIDING_CANDIDATES = 200;

/** Worst case of one decision that is worth a warning. */
const SLOW_DECISION_NS = 10_000_000;

function warning(
  rule: CompiledRule,
  code: string,
  message: string,
  hint: string,
): Diagnostic {
  const { file, line, id } = rule;
  const text = `rule '${id}' ${message}`;
  return { severity: "warning", code, file, line, column: 1, message: text, hint };
}

function hostFacts(host: string): Facts {
  return { network: { hostname: host }, http: { host }, dns: { query: host } };
}

function tunnelFacts(host: string): Facts {
  return { network: { hostname: host }, http: { host, method: "CONNECT" } };
}

function canCount(rule: CompiledRule, facts: Facts, open: ReadonlySet<FactName>): boolean {
  return (rule.evaluate(new Evaluation(facts, open)) & CAN_BE_TRUE) !== 0;
}

/** Whether an allow rule opens the network to names that it does not mention. */
function opensAnyHost(rule: CompiledRule): boolean {
  return rule.action === "allow" && hostsOf(rule.expr) === null &&
    canCount(rule, hostFacts(PROBE_HOST), OPEN_FACTS);
}

/** Why a text literal can never equal a fact; null when it can. */
function literalProblem(fact: FactName, text: string): { message: string; hint: string } | null {
  const never = (what: string, hint: string): { message: string; hint: string } => ({
    message: `compares ${fact} with '${text}', which it never is: ${what}`,
    hint,
  });
  if (HOST_FACTS.has(fact)) return hostLiteralProblem(text, never);
  switch (fact) {
    case "http.method":
    case "dns.record_type":
      return text === text.toUpperCase()
        ? null
        : never("it is in upper case", `Write '${text.toUpperCase()}'.`);
    case "http.path":
      if (!text.startsWith("/")) return never("it starts with '/'", `Write '/${text}'.`);
      return text.includes("?")
        ? never("it has no query", "Leave out '?' and what follows it.")
        : null;
    case "network.protocol":
      return text === "tcp" || text === "udp"
        ? null
        : never("it is 'tcp' or 'udp'", "For web traffic, leave it out.");
    default:
      return null;
  }
}

type Never = (what: string, hint: string) => { message: string; hint: string };

function hostLiteralProblem(text: string, never: Never): { message: string; hint: string } | null {
  const host = parseHost(text);
  if (host !== null) {
    const name = String(host);
    return name === text ? null : never("it is in canonical form", `Write '${name}'.`);
  }
  const wildcard = /^\*\.(.+)$/.exec(text)?.[1];
  if (wildcard !== undefined && Hostname.parse(wildcard) !== null) {
    return never("it has no wildcards", `Write: .under("${wildcard}")`);
  }
  const url = URL.parse(text.includes("://") ? text : `x://${text}`);
  const inner = url === null ? null : parseHost(url.hostname);
  return inner === null
    ? never("it is a host name", "Write the name alone, such as api.example.com.")
    : never("it is a host name alone", `Write '${String(inner)}'.`);
}

/** Comparisons of a fact with text literals, anywhere in a condition. */
function* comparisons(expr: Expr): Generator<{ fact: FactName; text: string }> {
  for (const part of parts(expr)) yield* comparisons(part);
  if (expr.op === "==" || expr.op === "!=") {
    for (const [a, b] of [[expr.left, expr.right], [expr.right, expr.left]] as const) {
      if (a.op === "fact" && b.op === "constant" && typeof b.value === "string") {
        yield { fact: a.name, text: b.value };
      }
    }
  }
  if (expr.op !== "in" || expr.left.op !== "fact" || expr.right.op !== "constant") return;
  const items: readonly unknown[] = Array.isArray(expr.right.value) ? expr.right.value : [];
  for (const text of items) if (typeof text === "string") yield { fact: expr.left.name, text };
}

/** Facts that two clauses of one `&&` want to have different values. */
function contradiction(expr: Expr): string | null {
  if (expr.op !== "and") return null;
  const wanted = new Map<string, string>();
  for (const item of expr.items) {
    if (item.op !== "==") continue;
    for (const { fact, text } of comparisons(item)) {
      const other = wanted.get(fact);
      if (other !== undefined && other !== text) return fact;
      wanted.set(fact, text);
    }
  }
  return null;
}

function lintNever(rule: CompiledRule): Diagnostic[] {
  const findings = [...comparisons(rule.expr)].flatMap(({ fact, text }) => {
    const problem = literalProblem(fact, text);
    if (problem === null) return [];
    return [warning(rule, "lint.never_equal", problem.message, problem.hint)];
  });
  const fact = contradiction(rule.expr);
  if (fact !== null) {
    const message = `can never match: it wants two different values of ${fact}`;
    findings.push(warning(rule, "lint.never_matches", message, "Use || or a list instead of &&."));
  } else if (!canCount(rule, {}, EVERY_FACT)) {
    const message = "can never match: its condition is always false";
    findings.push(warning(rule, "lint.never_matches", message, "Remove it."));
  }
  return findings;
}

/** A host test that other people's names pass too. */
function* looseHostTests(expr: Expr): Generator<{ text: string; how: string }> {
  for (const part of parts(expr)) yield* looseHostTests(part);
  if (expr.op === "matches" && expr.item.op === "fact" && HOST_FACTS.has(expr.item.name)) {
    const anchored = expr.pattern.startsWith("^") && expr.pattern.endsWith("$");
    if (!anchored) yield { text: expr.pattern, how: "finds the pattern anywhere in the name" };
  }
  if (expr.op !== "call") return;
  const [item, argument] = expr.items;
  if (item?.op !== "fact" || !HOST_FACTS.has(item.name)) return;
  if (argument?.op !== "constant" || typeof argument.value !== "string") return;
  const text = argument.value;
  if (expr.name === "endsWith" && !text.startsWith(".")) {
    yield { text, how: `also matches evil${text}` };
  } else if (expr.name === "startsWith") {
    yield { text, how: `also matches ${text}.evil.example` };
  } else if (expr.name === "contains") {
    yield { text, how: `also matches ${text}.evil.example` };
  }
}

function* suffixes(expr: Expr): Generator<string> {
  for (const part of parts(expr)) yield* suffixes(part);
  if (expr.op === "under") yield* expr.parents;
  if (expr.op === "call" && expr.name === "endsWith") {
    const [item, argument] = expr.items;
    const isHost = item?.op === "fact" && HOST_FACTS.has(item.name);
    if (isHost && argument?.op === "constant" && typeof argument.value === "string") {
      yield argument.value.replace(/^\./, "");
    }
  }
}

function lintHosts(rule: CompiledRule): Diagnostic[] {
  if (rule.action !== "allow") return [];
  if (opensAnyHost(rule)) {
    const message = "allows every host";
    const hint = 'Add a clause on the host, such as http.host == "api.example.com".';
    return [warning(rule, "lint.any_host", message, hint)];
  }
  const findings: Diagnostic[] = [];
  for (const { text, how } of looseHostTests(rule.expr)) {
    const hint = `Use == for one name, or .under("example.com") for a domain.`;
    findings.push(
      warning(rule, "lint.loose_host", `tests a host with '${text}', which ${how}`, hint),
    );
  }
  for (const suffix of suffixes(rule.expr)) {
    const shared = !suffix.includes(".") || SHARED_DOMAINS.includes(suffix);
    if (!shared) continue;
    const message = `allows every name under '${suffix}', where anybody can have one`;
    findings.push(warning(rule, "lint.shared_domain", message, "Name the hosts that are needed."));
  }
  const resolvers = ENCRYPTED_RESOLVERS.filter((host) =>
    canCount(rule, tunnelFacts(host), TUNNEL_FACTS)
  );
  if (resolvers.length > 0) {
    const message = `admits DNS over HTTPS (${
      resolvers.join(", ")
    }), which hides what is looked up`;
    findings.push(warning(rule, "lint.encrypted_dns", message, "Block it in an earlier rule."));
  }
  return findings;
}

/** Facts that nobody sees inside a tunnel. */
const HIDDEN_FACTS: readonly FactName[] = ["http.path", "http.headers", "http.body_size"];

/** Whether the rule itself says that it is about plain HTTP. */
function isForPort80(rule: CompiledRule, host: string): boolean {
  const ports = rule.egress?.ports;
  if (ports !== undefined) return ports.every((port) => port === 80);
  const toHttps = { ...hostFacts(host), network: { hostname: host, port: 443 } };
  return !canCount(rule, toHttps, OPEN_FACTS);
}

/** A host that the rule is about. */
function someHost(rule: CompiledRule): string {
  const hosts = hostsOf(rule.expr);
  if (hosts === null) return PROBE_HOST;
  const [exact] = hosts.exact;
  const [parent] = hosts.under;
  return exact ?? (parent === undefined ? PROBE_HOST : `probe.${parent}`);
}

function lintTunnel(rule: CompiledRule): Diagnostic[] {
  const hidden = [...HIDDEN_FACTS, "http.method" as const].filter((fact) =>
    mentions(rule.expr, fact)
  );
  if (hidden.length === 0) return [];
  const host = someHost(rule);
  const plain = canCount(rule, hostFacts(host), OPEN_FACTS);
  if (!plain || canCount(rule, tunnelFacts(host), TUNNEL_FACTS)) return [];
  if (isForPort80(rule, host)) return [];
  const seen = hidden.join(", ");
  return rule.action === "allow"
    ? [warning(
      rule,
      "lint.plain_http_only",
      `never allows HTTPS: nobody sees ${seen} inside a tunnel`,
      "For HTTPS, allow the host as a whole.",
    )]
    : [warning(
      rule,
      "lint.plain_http_only",
      `never blocks HTTPS: nobody sees ${seen} inside a tunnel`,
      "For HTTPS, allow only hosts whose every path may be used.",
    )];
}

/** A limit for bodies that a client escapes by speaking HTTPS. */
function lintBodyLimit(rule: CompiledRule): Diagnostic[] {
  const maxBytes = rule.egress?.maxBodyBytes ?? DEFAULT_BODY_BYTES;
  const host = someHost(rule);
  if (maxBytes >= DEFAULT_BODY_BYTES || isForPort80(rule, host)) return [];
  if (!canCount(rule, tunnelFacts(host), TUNNEL_FACTS)) return [];
  const message = "does not limit bodies in HTTPS, which it allows: nobody sees them";
  const hint = "If only short bodies may leave, keep it to plain HTTP: network.port == 80.";
  return [warning(rule, "lint.body_limit", message, hint)];
}

/** What is open when an address is about to be opened to some agent. */
const GRANT_FACTS: ReadonlySet<FactName> = new Set<FactName>([
  "network.ip",
  "agent.name",
  "dns.record_type",
]);

/** A `direct_ip` rule that opens no port, or not all that it names. */
function lintDirect(rule: CompiledRule): Diagnostic[] {
  if (rule.openings.length === 0) return [];
  const host = someHost(rule);
  const opens = rule.openings.some(({ protocol, port }) => {
    const facts = { ...hostFacts(host), network: { hostname: host, protocol, port } };
    return canCount(rule, facts, GRANT_FACTS);
  });
  if (!opens) {
    const message = "never opens anything past the proxy, though its mode is direct_ip";
    const hint =
      "Name ports by == or in, or in egress.ports; nobody sees method, path and headers.";
    return [warning(rule, "lint.direct_nothing", message, hint)];
  }
  if (rule.openings.length < MAX_OPENINGS) return [];
  const message = `opens no more than its first ${MAX_OPENINGS} ports past the proxy`;
  return [warning(rule, "lint.direct_ports", message, "Name the ports that are needed.")];
}

function samePorts(a: CompiledRule, b: CompiledRule): boolean {
  return JSON.stringify(a.egress?.ports) === JSON.stringify(b.egress?.ports);
}

/** An earlier rule that decides whenever `rule` would. */
function hidingRule(policy: Policy, rule: CompiledRule, position: number): CompiledRule | null {
  const hosts = hostsOf(rule.expr);
  const host = hosts === null ? undefined : [...hosts.exact][0] ?? [...hosts.under][0];
  const candidates = policy.index.candidates(host === undefined ? {} : hostFacts(host));
  for (let tried = 0; tried < MAX_HIDING_CANDIDATES; tried++) {
    const i = candidates.next();
    const earlier = policy.rules[i];
    if (i < 0 || i >= position || earlier === undefined) return null;
    const decides = earlier.action === "block" || samePorts(earlier, rule);
    if (decides && implies(rule.expr, earlier.expr)) return earlier;
  }
  return null;
}

function lintHidden(policy: Policy, rule: CompiledRule, position: number): Diagnostic[] {
  const earlier = hidingRule(policy, rule, position);
  if (earlier === null) return [];
  const message =
    `never decides: rule '${earlier.id}' (${earlier.file}:${earlier.line}) comes first`;
  const hint = earlier.action === rule.action
    ? "Remove it."
    : `Give it a lower priority number than ${earlier.priority}, or remove it.`;
  return [warning(rule, "lint.hidden", message, hint)];
}

/** Rules about any host are evaluated for every request. */
function lintCost(policy: Policy): Diagnostic[] {
  const rules = policy.rules.filter(({ expr }) => hostsOf(expr) === null);
  const ns = rules.reduce((sum, { expr }) => sum + costNs(expr), 0);
  const slowest = rules.toSorted((a, b) => costNs(b.expr) - costNs(a.expr))[0];
  if (slowest === undefined || ns <= SLOW_DECISION_NS) return [];
  const limitMs = LIMITS.conditionCostNs / 1_000_000;
  const message = `and ${rules.length - 1} others without a host may take ${
    Math.ceil(ns / 1_000_000)
  } ms for one hostile request (each rule by itself stays below ${limitMs} ms)`;
  return [warning(slowest, "lint.slow", message, "Add a clause on the host to each of them.")];
}

/** Everything about a policy that its author may want to reconsider, in evaluation order. */
export function lint(policy: Policy): Diagnostic[] {
  return [
    ...policy.rules.flatMap((rule, position) => [
      ...lintNever(rule),
      ...lintHosts(rule),
      ...lintTunnel(rule),
      ...lintBodyLimit(rule),
      ...lintDirect(rule),
      ...lintHidden(policy, rule, position),
    ]),
    ...lintCost(policy),
  ];
}
