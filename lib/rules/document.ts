/**
 * The shape of a rule file: YAML in, raw rules with positions out. Strict at every level, because a
 * field that is ignored is a protection the operator believes in and does not have.
 */
import { isAlias, isMap, isScalar, isSeq, type YAMLMap } from "yaml";
import type { Diagnostic, Source } from "./diagnostic.ts";
import { readEgress } from "./egress.ts";
import { LIMITS } from "./limits.ts";
import { describe, type Fields, isNothing, NodeReader } from "./nodes.ts";
import { type RawTest, readTests } from "./rawtest.ts";
import type { ScalarText } from "./scalar.ts";
import type { Egress } from "./types.ts";
import { parseYaml } from "./yaml.ts";

/** A rule as written, checked for shape only. */
export interface RawRule {
  readonly id: ScalarText;
  readonly condition: ScalarText;
  readonly action: "allow" | "block";
  readonly priority: number;
  readonly log: boolean;
  readonly description: string | null;
  /** Null for block rules. */
  readonly egress: Egress | null;
}

/** A rule file as written, checked for shape only. */
export interface RawFile {
  readonly source: Source;
  readonly definitions: ReadonlyMap<string, ScalarText>;
  readonly rules: readonly RawRule[];
  readonly tests: readonly RawTest[];
  /** The file lists rules, whether or not they are sound. */
  readonly hasRules: boolean;
}

/** S003-FR-032: lower numbers are judged first. */
const DEFAULT_PRIORITY = 100;
const MIN_PRIORITY = -2_147_483_648;
const MAX_PRIORITY = 2_147_483_647;

const FILE_FIELDS = ["version", "definitions", "rules", "tests"];
const RULE_FIELDS = ["id", "condition", "action", "log", "description", "priority", "egress"];

const ID_PATTERN = /^[A-Za-z0-9][A-Za-z0-9_.-]*$/;
const DEFINITION_NAME_PATTERN = /^[A-Za-z_][A-Za-z0-9_]*$/;

function checkVersion(node: unknown, root: YAMLMap, reader: NodeReader): void {
  if (isScalar(node) && node.value === "1") return;
  const hint = 'Outcall reads: version: "1"';
  if (node === undefined) {
    reader.error(root, { code: "rules.version", message: "'version' is missing", hint });
  } else if (isScalar(node) && typeof node.value === "number") {
    const message = `version must be a text, not the number ${node.value}`;
    reader.error(node, { code: "rules.version", message, hint });
  } else {
    const message = `version ${describe(node)} is not supported`;
    reader.error(node, { code: "rules.version", message, hint });
  }
}

function readDefinitions(node: unknown, reader: NodeReader): ReadonlyMap<string, ScalarText> {
  const definitions = new Map<string, ScalarText>();
  if (node === undefined || isNothing(node)) return definitions;
  if (!isMap(node)) {
    reader.error(node, {
      code: "rules.type",
      message: `'definitions' must be a mapping of names to conditions, not ${describe(node)}`,
    });
    return definitions;
  }
  for (const [name, value] of reader.fields(node, null, "'definitions'")) {
    if (!DEFINITION_NAME_PATTERN.test(name)) {
      reader.error(value, {
        code: "rules.definition_name",
        message: `'${name}' cannot be a definition's name`,
        hint: "Use letters, digits and underscores, with no digit first.",
      });
      continue;
    }
    const text = reader.text(value, `definition '${name}'`);
    if (text !== null) definitions.set(name, text);
  }
  return definitions;
}

function readRules(node: unknown, reader: NodeReader): RawRule[] {
  if (node === undefined || isNothing(node)) return [];
  if (!isSeq(node)) {
    reader.error(node, {
      code: "rules.type",
      message: `'rules' must be a list, not ${describe(node)}`,
      hint: "Start each rule with '- id: …'.",
    });
    return [];
  }
  return node.items.flatMap((item) => readRule(item, reader) ?? []);
}

function readRule(node: unknown, reader: NodeReader): RawRule | null {
  if (!isMap(node)) {
    reader.error(node, {
      code: "rules.type",
      message: isAlias(node)
        ? "YAML aliases (*name) are not supported"
        : `a rule must be a mapping of fields, not ${describe(node)}`,
      hint: "Start each rule with '- id: …'.",
    });
    return null;
  }
  const fields = reader.fields(node, RULE_FIELDS, "a rule");
  const id = readId(fields, node, reader);
  const condition = readRequired(fields, "condition", node, reader);
  const action = readAction(fields, node, reader);
  const priority = readPriority(fields.get("priority"), reader);
  const log = reader.boolean(fields.get("log"), "'log'", false);
  const description = fields.has("description")
    ? reader.text(fields.get("description"), "'description'")?.value ?? null
    : null;
  const egress = readEgress(fields.get("egress"), action, reader);
  if (id === null || condition === null) return null;
  // A set with a wrong action is refused whole; the condition may have more to tell until then.
  return { id, condition, action: action ?? "block", priority, log, description, egress };
}

function readRequired(
  fields: Fields,
  name: string,
  rule: YAMLMap,
  reader: NodeReader,
): ScalarText | null {
  if (fields.has(name)) return reader.text(fields.get(name), `'${name}'`);
  if (fields.isMissing(name)) reportMissing(name, rule, reader);
  return null;
}

function reportMissing(name: string, rule: YAMLMap, reader: NodeReader): void {
  reader.error(rule.items[0]?.key, {
    code: "rules.missing_field",
    message: `a rule has no '${name}'`,
    hint: "A rule needs id, condition and action.",
  });
}

function readId(fields: Fields, rule: YAMLMap, reader: NodeReader): ScalarText | null {
  const id = readRequired(fields, "id", rule, reader);
  if (id === null) return null;
  if (id.value.length <= LIMITS.idLength && ID_PATTERN.test(id.value)) return id;
  reader.error(fields.get("id"), {
    code: "rules.id",
    message: `'${id.value.slice(0, 40)}' cannot be a rule's id`,
    hint:
      `Use at most ${LIMITS.idLength} letters, digits, '.', '_' and '-', with a letter or digit first.`,
  });
  return null;
}

function readAction(fields: Fields, rule: YAMLMap, reader: NodeReader): "allow" | "block" | null {
  if (!fields.has("action")) {
    if (fields.isMissing("action")) reportMissing("action", rule, reader);
    return null;
  }
  const node = fields.get("action");
  if (isScalar(node) && node.value === "enrich") {
    reader.error(node, {
      code: "rules.enrich",
      message: "action 'enrich' is reserved and not supported",
      hint: "Use 'allow' or 'block'.",
    });
    return null;
  }
  return reader.action(node, "'action'");
}

function readPriority(node: unknown, reader: NodeReader): number {
  if (node === undefined) return DEFAULT_PRIORITY;
  const value = isScalar(node) ? node.value : undefined;
  const valid = typeof value === "number" && Number.isInteger(value) &&
    value >= MIN_PRIORITY && value <= MAX_PRIORITY;
  if (valid) return value;
  reader.error(node, {
    code: "rules.type",
    message: `'priority' must be a whole number, not ${describe(node)}`,
    hint: `Lower numbers are judged first; without it a rule has ${DEFAULT_PRIORITY}.`,
  });
  return DEFAULT_PRIORITY;
}

/** Reads the shape of one rule file; null when nothing of it could be read. */
export function readDocument(
  source: Source,
  report: (diagnostic: Diagnostic) => void,
): RawFile | null {
  const reader = new NodeReader(source, report);
  const root = parseYaml(reader);
  if (root === null) return null;
  const fields = reader.fields(root, FILE_FIELDS, "a rule file");
  checkVersion(fields.get("version"), root, reader);
  const rules = fields.get("rules");
  return {
    source,
    definitions: readDefinitions(fields.get("definitions"), reader),
    rules: readRules(rules, reader),
    tests: readTests(fields.get("tests"), reader),
    hasRules: isSeq(rules) && rules.items.length > 0,
  };
}
