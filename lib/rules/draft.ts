/** Rules that the daemon writes for an operator: text in CEL and YAML that says just what is meant. */
import { LIMITS } from "./limits.ts";

/** A rule to be written. */
export interface Draft {
  readonly id: string;
  readonly description: string;
  /** Joined by `&&`; each one in CEL, binding tighter than that. */
  readonly clauses: readonly string[];
  /** `egress.ports`; absent: what the layers' defaults and the clauses say. */
  readonly ports?: readonly number[];
  /** `egress.mode: direct_ip`. */
  readonly isDirect?: boolean;
}

/** Longest condition on one line. */
const LINE_LENGTH = 88;

/**
 * A text literal, for CEL and for YAML's double quotes alike. Nothing but printable ASCII is left as
 * it is: what was recorded may hold anything, and a rule must read as it works.
 */
export function literal(text: string): string {
  const escaped = [...text].map((char) => {
    if (char === '"' || char === "\\") return `\\${char}`;
    if (/^[ -~]$/.test(char)) return char;
    const hex = (char.codePointAt(0) ?? 0).toString(16);
    return hex.length <= 4 ? `\\u${hex.padStart(4, "0")}` : `\\U${hex.padStart(8, "0")}`;
  });
  return `"${escaped.join("")}"`;
}

/** `fact == "one"`, or `fact in ["one", "two"]`. */
export function isOneOf(fact: string, texts: readonly string[]): string {
  const [only, second] = texts;
  return second === undefined
    ? `${fact} == ${literal(only ?? "")}`
    : `${fact} in [${texts.map(literal).join(", ")}]`;
}

/** The same for numbers. */
export function isOneOfNumbers(fact: string, numbers: readonly number[]): string {
  return numbers.length === 1 ? `${fact} == ${numbers[0]}` : `${fact} in [${numbers.join(", ")}]`;
}

/**
 * An id made of words, that no other rule has.
 * @param isTaken Whether another rule has it.
 */
export function newRuleId(words: readonly string[], isTaken: (id: string) => boolean): string {
  const joined = words.join("-").replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[^A-Za-z0-9]+/, "");
  // Room for a number behind it.
  const base = joined.slice(0, LIMITS.idLength - 8) || "rule";
  for (let i = 1;; i++) {
    const id = i === 1 ? base : `${base}-${i}`;
    if (!isTaken(id)) return id;
  }
}

function conditionLines(clauses: readonly string[]): string[] {
  const line = clauses.join(" && ");
  if (line.length <= LINE_LENGTH) return [`    condition: '${line.replaceAll("'", "''")}'`];
  const last = clauses.length - 1;
  return [
    "    condition: |",
    ...clauses.map((clause, i) => `      ${clause}${i < last ? " &&" : ""}`),
  ];
}

/** The rule as an item of `rules:`. */
export function draftText({ id, description, clauses, ports, isDirect }: Draft): string {
  const egress = [
    ...(isDirect === true ? ["mode: direct_ip"] : []),
    ...(ports === undefined ? [] : [`ports: [${ports.join(", ")}]`]),
  ];
  return [
    `  - id: ${id}`,
    `    description: ${literal(description)}`,
    ...conditionLines(clauses),
    "    action: allow",
    ...(egress.length === 0 ? [] : [`    egress: { ${egress.join(", ")} }`]),
  ].join("\n");
}

/** A rule file with these rules. */
export function fileText(drafts: readonly Draft[]): string {
  return ['version: "1"', "rules:", ...drafts.map(draftText), ""].join("\n");
}
