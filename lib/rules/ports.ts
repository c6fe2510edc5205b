/**
 * Ports and protocols that rules admit: by their conditions (decision D25), and of `direct_ip` rules
 * those that may be opened in the kernel (decision D12).
 */
import { compileCondition } from "./evaluate.ts";
import { type Expr, mentions, parts } from "./ir.ts";
import type { Evaluation } from "./outcome.ts";
import type { Egress, Opening } from "./types.ts";

/** Decision D25: what a rule reaches when neither `egress.ports` nor its condition says more. */
export const DEFAULT_PORT = 443;

/**
 * Where plain HTTP goes only if the rule names the port: what listens there may take the lines of a
 * request, which the agent writes, for commands of its own protocol (mail, IRC, Redis). The "bad ports"
 * of the Fetch standard (section 2.9), and those of databases.
 */
export const OTHER_SERVICES_PORTS: ReadonlySet<number> = new Set(
  `
    1 7 9 11 13 15 17 19 20 21 22 23 25 37 42 43 53 69 77 79 87 95 101 102 103 104 109 110
    111 113 115 117 119 123 135 137 139 143 161 179 389 427 465 512 513 514 515 526 530 531
    532 540 548 554 556 563 587 601 636 989 990 993 995 1719 1720 1723 2049 3659 4045 4190
    5060 5061 6000 6566 6665 6666 6667 6668 6669 6679 6697 10080 1433 1521 3306 3389 5432
    5672 5900 6379 11211 27017
  `.trim().split(/\s+/).map(Number),
);

/** Facts that a rule admits a value of by comparing them. */
export type AdmittedFact = "network.port" | "network.protocol";

/**
 * Whether a comparison of one fact is among the reasons why a condition counts. Asked only for a
 * condition that does count, with the facts as they are and with the same facts but that one.
 *
 * `http.host == "a" || (http.host == "b" && network.port == 22)` counts for every port of a, and no
 * comparison is a reason for that: it opens port 22 of b, and of a nothing but the default.
 */
export type AdmissionTest = (evaluation: Evaluation, withoutFact: Evaluation) => boolean;

/** Compiles the test for one condition. */
export function compileAdmissionTest(expr: Expr, fact: AdmittedFact): AdmissionTest {
  if (!mentions(expr, fact)) return () => false;
  switch (expr.op) {
    case "and": {
      // All items count, or the whole would not.
      const tests = expr.items.map((item) => compileAdmissionTest(item, fact));
      return (evaluation, withoutFact) => tests.some((test) => test(evaluation, withoutFact));
    }
    case "or": {
      const items = expr.items.map((item) => ({
        condition: compileCondition(item),
        test: compileAdmissionTest(item, fact),
      }));
      return (evaluation, withoutFact) =>
        items.some(({ condition, test }) =>
          evaluation.allows(condition(evaluation)) && test(evaluation, withoutFact)
        );
    }
    default: {
      const condition = compileCondition(expr);
      // Not if it may hold for every value of the fact.
      return (_evaluation, withoutFact) => !withoutFact.blocks(condition(withoutFact));
    }
  }
}

/** What one `direct_ip` rule may have tried for each address: an agent has 256 grants. */
export const MAX_OPENINGS = 64;

/** Constants that a condition compares `network.port` with, by `==` or `in`, anywhere in it. */
function* comparedPorts(expr: Expr): Generator<number> {
  for (const part of parts(expr)) yield* comparedPorts(part);
  if (expr.op !== "==" && expr.op !== "in") return;
  for (const [a, b] of [[expr.left, expr.right], [expr.right, expr.left]] as const) {
    if (a.op !== "fact" || a.name !== "network.port" || b.op !== "constant") continue;
    const values: readonly unknown[] = Array.isArray(b.value) ? b.value : [b.value];
    for (const value of values) {
      if (typeof value === "number" && value >= 1 && value <= 65_535) yield value;
    }
  }
}

/**
 * What to judge for each address that an allowed name resolves to. A condition cannot be turned into
 * the ports that it admits; those that it names are tried, and judged like any attempt.
 * @returns none for rules of another mode; more than {@linkcode MAX_OPENINGS} are cut off.
 */
export function openingsOf(egress: Egress | null, expr: Expr): readonly Opening[] {
  if (egress?.mode !== "direct_ip") return [];
  const ports = egress.ports ?? [DEFAULT_PORT, ...comparedPorts(expr)];
  const protocols = mentions(expr, "network.protocol") ? ["tcp", "udp"] as const : ["tcp"] as const;
  return [...new Set(ports)]
    .flatMap((port) => protocols.map((protocol) => ({ protocol, port })))
    .slice(0, MAX_OPENINGS);
}
