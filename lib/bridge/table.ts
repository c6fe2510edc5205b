/**
 * An nftables table as data: rendered to one transaction, and compared with what the kernel lists.
 *
 * A transaction updates the table in place: rules and elements change in one instant, while base
 * chains, their hooks and sets that others fill stay. Deleting and making the table anew would
 * unhook the old chains one by one after the new ones are in, so that a packet could still meet an
 * old, more permissive chain (nf_tables_commit of the kernel). That is left to a table that somebody
 * else has given another shape.
 */
import { z } from "zod";
import type { Family } from "../linux/nft.ts";

/** One part of a set element: a name, an address, a number, or a network. */
export type Part = string | number | {
  readonly prefix: { readonly addr: string; readonly len: number };
};

/** A named set. */
export interface NftSet {
  readonly name: string;
  /** nft's types, concatenated, such as `["ifname", "ipv4_addr"]`. */
  readonly type: readonly string[];
  readonly flags: readonly ("interval" | "timeout" | "dynamic")[];
  /** Bounds of a set that packets fill: most elements, and seconds without a packet. */
  readonly bounds?: { readonly elements: number; readonly timeoutSecs: number };
  readonly comment: string;
  /** One part for each type. Null: others fill the set, and an update keeps what is in it. */
  readonly elements: readonly (readonly Part[])[] | null;
}

/** One rule. */
export interface NftRule {
  /** Matching expressions in nft's language; empty: every packet. */
  readonly match: string;
  /** Statements between match and verdict, such as `counter` or `notrack`. */
  readonly statements?: string;
  readonly verdict:
    | "accept"
    | "drop"
    | "masquerade"
    | `goto ${string}`
    | `log ${string}`;
  /** Unique in its chain: operators and {@linkcode differences} know the rule by it. */
  readonly comment: string;
}

/** A chain that packets come to by a rule's `goto` alone. */
export interface NftTargetChain {
  readonly name: string;
  readonly rules: readonly NftRule[];
}

/** A base chain. */
export interface NftChain extends NftTargetChain {
  readonly type: "filter" | "nat";
  readonly hook: "prerouting" | "input" | "forward" | "output" | "postrouting";
  /** As in nft's documentation: lower comes first; 0 is `filter` in the inet family. */
  readonly priority: number;
  readonly policy: "accept" | "drop";
}

/** A table with all it holds. */
export interface NftTable {
  readonly family: Family;
  readonly name: string;
  readonly sets: readonly NftSet[];
  readonly targets: readonly NftTargetChain[];
  readonly chains: readonly NftChain[];
}

function partText(part: Part, type: string | undefined): string {
  if (typeof part === "object") return `${part.prefix.addr}/${part.prefix.len}`;
  return type === "ifname" ? `"${part}"` : String(part);
}

function setText(set: NftSet, isFilled: boolean): string {
  const { name, type, flags, bounds, comment, elements } = set;
  const lines = [`  set ${name} {`, `    type ${type.join(" . ")}`];
  if (bounds !== undefined) lines.push(`    size ${bounds.elements}`);
  if (flags.length > 0) lines.push(`    flags ${flags.join(", ")}`);
  if (bounds !== undefined) lines.push(`    timeout ${bounds.timeoutSecs}s`);
  lines.push(`    comment "${comment}"`);
  // nft refuses an empty list of elements.
  if (isFilled && elements !== null && elements.length > 0) {
    const texts = elements.map((element) =>
      `      ${element.map((part, i) => partText(part, type[i])).join(" . ")}`
    );
    lines.push("    elements = {", texts.join(",\n"), "    }");
  }
  return [...lines, "  }"].join("\n");
}

function ruleText({ match, statements, verdict, comment }: NftRule): string {
  const parts = [match, statements ?? "", verdict].filter((part) => part !== "");
  return `    ${parts.join(" ")} comment "${comment}"`;
}

function targetText({ name, rules }: NftTargetChain): string {
  return [`  chain ${name} {`, ...rules.map(ruleText), "  }"].join("\n");
}

function chainText({ name, type, hook, priority, policy, rules }: NftChain): string {
  return [
    `  chain ${name} {`,
    `    type ${type} hook ${hook} priority ${priority}; policy ${policy};`,
    ...rules.map(ruleText),
    "  }",
  ].join("\n");
}

function bodyText(table: NftTable): string {
  const parts = [
    ...table.sets.map((set) => setText(set, true)),
    ...table.targets.map(targetText),
    ...table.chains.map(chainText),
  ];
  return `table ${table.family} ${table.name} {\n${parts.join("\n\n")}\n}\n`;
}

/** The transaction that gives an existing table of this shape, or none, the content of `table`. */
export function renderUpdate(table: NftTable): string {
  const { family, name, sets } = table;
  const emptySets = sets.map((set) => setText(set, false)).join("\n");
  const flushes = sets.filter(({ elements }) => elements !== null)
    .map((set) => `flush set ${family} ${name} ${set.name}`);
  return [
    `table ${family} ${name} {\n${emptySets}\n}`,
    `flush table ${family} ${name}`,
    ...flushes,
    bodyText(table),
  ].join("\n");
}

/** The transaction that replaces whatever has the table's name. */
export function renderReplacement(table: NftTable): string {
  const { family, name } = table;
  return `table ${family} ${name}\ndelete table ${family} ${name}\n${bodyText(table)}`;
}

// libnftables-json(5)
const listedTable = z.object({
  name: z.string(),
  flags: z.union([z.string(), z.array(z.string())]).optional(),
});
const listedSet = z.object({
  name: z.string(),
  type: z.union([z.string(), z.array(z.string())]),
  flags: z.union([z.string(), z.array(z.string())]).default([]),
  elem: z.array(z.unknown()).default([]),
});
const listedChain = z.object({
  name: z.string(),
  type: z.string().optional(),
  hook: z.string().optional(),
  prio: z.number().optional(),
  policy: z.string().optional(),
});
const listedRule = z.object({
  chain: z.string(),
  comment: z.string().optional(),
  expr: z.array(z.record(z.string(), z.unknown())),
});

/** The objects of a listing by kind. */
interface Listing {
  readonly tables: z.infer<typeof listedTable>[];
  readonly sets: z.infer<typeof listedSet>[];
  readonly chains: z.infer<typeof listedChain>[];
  readonly rules: z.infer<typeof listedRule>[];
  /** Kinds of all other objects. */
  readonly others: string[];
}

function sorted(listing: readonly unknown[]): Listing {
  const kinds: Listing = { tables: [], sets: [], chains: [], rules: [], others: [] };
  const object = z.record(z.string(), z.unknown());
  for (const entry of listing) {
    for (const [kind, value] of Object.entries(object.parse(entry))) {
      if (kind === "metainfo") continue;
      else if (kind === "table") kinds.tables.push(listedTable.parse(value));
      else if (kind === "set") kinds.sets.push(listedSet.parse(value));
      else if (kind === "chain") kinds.chains.push(listedChain.parse(value));
      else if (kind === "rule") kinds.rules.push(listedRule.parse(value));
      else kinds.others.push(kind);
    }
  }
  return kinds;
}

function many(value: string | readonly string[] | undefined): readonly string[] {
  return value === undefined ? [] : typeof value === "string" ? [value] : value;
}

function setShape(type: readonly string[], flags: readonly string[]): string {
  // Not every version of nft lists the flag of sets that packets fill.
  const listed = flags.filter((flag) => flag !== "dynamic").toSorted();
  return `${type.join(" . ")} ${listed.join(",")}`;
}

/** The shape of a chain that packets come to by `goto` alone. */
const NO_HOOK = "no hook";

function shapeDifferences(table: NftTable, listing: readonly unknown[]): string[] {
  const { sets, chains, others } = sorted(listing);
  const found = others.map((kind) => `a foreign ${kind}`);
  const expectedSets = new Map(table.sets.map((set) => [set.name, setShape(set.type, set.flags)]));
  const expectedChains = new Map([
    ...table.targets.map(({ name }) => [name, NO_HOOK] as const),
    ...table.chains.map((chain) =>
      [chain.name, `${chain.type} ${chain.hook} ${chain.priority}`] as const
    ),
  ]);
  for (const { name, type, flags } of sets) {
    const expected = expectedSets.get(name);
    if (expected === undefined) found.push(`a foreign set ${name}`);
    else if (expected !== setShape(many(type), many(flags))) found.push(`set ${name} has changed`);
    expectedSets.delete(name);
  }
  for (const { name, type, hook, prio } of chains) {
    const expected = expectedChains.get(name);
    if (expected === undefined) found.push(`a foreign chain ${name}`);
    else if (expected !== (hook === undefined ? NO_HOOK : `${type} ${hook} ${prio}`)) {
      found.push(`chain ${name} is hooked elsewhere`);
    }
    expectedChains.delete(name);
  }
  for (const name of expectedSets.keys()) found.push(`set ${name} is missing`);
  for (const name of expectedChains.keys()) found.push(`chain ${name} is missing`);
  return found;
}

const PROTOCOL_NUMBERS: Readonly<Record<string, number>> = { tcp: 6, udp: 17 };

/** An element in the form in which nft lists it. */
function listedElement(set: NftSet, element: readonly Part[]): string {
  const parts = element.map((part, i) =>
    set.type[i] === "inet_proto" ? PROTOCOL_NUMBERS[String(part)] ?? part : part
  );
  return JSON.stringify(parts.length === 1 ? parts[0] : { concat: parts });
}

function sameElements(set: NftSet, listed: readonly unknown[]): boolean {
  if (set.elements === null) return true;
  const expected = [...new Set(set.elements.map((element) => listedElement(set, element)))].sort();
  const actual = listed.map((element) => JSON.stringify(element)).sort();
  return JSON.stringify(expected) === JSON.stringify(actual);
}

/** What a rule is known by in a listing: its comment and its verdict. */
function ruleSummary(comment: string | undefined, verdict: string): string {
  return `${verdict} "${comment ?? ""}"`;
}

const gotoVerdict = z.object({ goto: z.object({ target: z.string() }) });

/** The verdict of a listed rule as {@linkcode NftRule} has it, a log's settings left out. */
function listedVerdict(last: Readonly<Record<string, unknown>> | undefined): string {
  const jump = gotoVerdict.safeParse(last).data;
  return jump === undefined
    ? Object.keys(last ?? {})[0] ?? "no verdict"
    : `goto ${jump.goto.target}`;
}

function withoutLogSettings(verdict: NftRule["verdict"]): string {
  return verdict.startsWith("log ") ? "log" : verdict;
}

/**
 * In what the kernel's table differs from `table`; empty when it is as rendered. What the single
 * rules match is taken from their comments, so a baseline of the whole listing is needed beside it.
 */
export function differences(table: NftTable, listing: readonly unknown[]): string[] {
  const found = shapeDifferences(table, listing);
  const { tables, sets, chains, rules } = sorted(listing);
  if (tables.some(({ flags }) => many(flags).includes("dormant"))) found.push("it is dormant");
  for (const set of table.sets) {
    const listed = sets.find(({ name }) => name === set.name);
    if (listed !== undefined && !sameElements(set, listed.elem)) {
      found.push(`set ${set.name} has other elements`);
    }
  }
  for (const chain of table.chains) {
    const policy = chains.find(({ name }) => name === chain.name)?.policy;
    if (policy !== undefined && policy !== chain.policy) {
      found.push(`chain ${chain.name} has policy ${policy}`);
    }
  }
  for (const chain of [...table.targets, ...table.chains]) {
    const expected = chain.rules.map((rule) =>
      ruleSummary(rule.comment, withoutLogSettings(rule.verdict))
    );
    const actual = rules.filter((rule) => rule.chain === chain.name).map((rule) =>
      ruleSummary(rule.comment, listedVerdict(rule.expr.at(-1)))
    );
    if (JSON.stringify(expected) !== JSON.stringify(actual)) {
      found.push(`chain ${chain.name} has other rules`);
    }
  }
  return found;
}
