/** What the layers say to a request, as lines: for `rules explain` and `explain`. */
import type { ExplainStep } from "../api/replies.ts";
import type { Clause, ExplainedRule, Truth } from "../rules/explain.ts";
import { oneLine } from "./render.ts";

/** Longest value of a fact that is worth a place on the line. */
const MAX_VALUE_LENGTH = 60;

function place({ id, file, line }: ExplainedRule): string {
  return `${id} (${file}:${line})`;
}

/** What a layer says, and the clauses of the rule that decided or came nearest. */
export function stepLines(
  { layer, decision, reason, error, rule, nearest }: ExplainStep,
): string[] {
  const verdict = `${layer.padEnd(10)}${decision.toUpperCase()}  `;
  const shown = rule ?? nearest?.rule ?? null;
  const clauses = shown === null ? [] : clauseLines(shown.clauses);
  if (rule !== null && reason === "rule") return [`${verdict}rule ${place(rule)}`, ...clauses];
  if (rule !== null && reason === "rule_error") {
    return [`${verdict}rule ${place(rule)} fails, which blocks: ${error}`, ...clauses];
  }
  if (rule !== null && reason === "proxy_only") {
    return [`${verdict}rule ${place(rule)} allows it through the proxy alone`, ...clauses];
  }
  if (rule !== null && reason === "limit") {
    return [`${verdict}rule ${place(rule)} allows no body as long as this`, ...clauses];
  }
  if (rule !== null) {
    return [`${verdict}rule ${place(rule)} allows the host, but not this port`, ...clauses];
  }
  if (nearest === null) return [`${verdict}no rule matches (default policy)`];
  return [
    `${verdict}no rule matches (default policy)`,
    `          nearest: ${place(nearest.rule)}`,
    ...(nearest.failed === null ? [] : [`          fails on: ${failedPlace(nearest)}`]),
    ...clauses,
  ];
}

/** The clause in the way, and where it is written. */
function failedPlace({ rule, failed }: NonNullable<ExplainStep["nearest"]>): string {
  if (failed === null) return "";
  return `${oneLine(failed.text)} (${rule.file}:${failed.line}:${failed.column})`;
}

/** What became of a clause, for people. */
const TRUTHS: Readonly<Record<Truth, string>> = {
  true: "true",
  false: "false",
  error: "error",
  pending: "later",
  never: "never",
};

function clauseLines(clauses: readonly Clause[]): string[] {
  const texts = clauses.map(({ text }) => oneLine(text));
  const width = Math.min(60, Math.max(0, ...texts.map((text) => text.length)));
  return clauses.map(({ truth, facts }, i) => {
    const values = Object.entries(facts).map(([name, value]) =>
      `${name} is ${shown(value, truth)}`
    );
    return `            ${TRUTHS[truth].padEnd(7)}${(texts[i] ?? "").padEnd(width)}  ${
      values.join(", ")
    }`.trimEnd();
  });
}

/** The value of a fact, or why there is none. */
function shown(value: unknown, truth: Truth): string {
  if (value === null) return truth === "pending" ? "not known yet" : "not known here";
  const text = JSON.stringify(value);
  return text.length <= MAX_VALUE_LENGTH ? text : `${text.slice(0, MAX_VALUE_LENGTH - 1)}…`;
}
