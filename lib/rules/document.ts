/**
 * The shape of a rule file: YAML in, raw rules with positions out. Strict at every level, because a
 * field that is ignored is a protection the operator believes in and does not have.
 */
import {
  type Document,
  isAlias,
  isMap,
  isNode,
  isScalar,
  isSeq,
  parseAllDocuments,
  type Scalar,
  type YAMLMap,
  type YAMLParseError,
} from "yaml";
import { messageOf } from "../errors.ts";
import type { Diagnostic, Finding, Source, Span } from "./diagnostic.ts";
import { LIMITS } from "./limits.ts";
import type { RequestSpec } from "./request.ts";
import { type ScalarText, scalarText } from "./scalar.ts";
import { nearest } from "./suggest.ts";
import { DEFAULT_EGRESS, type Egress } from "./types.ts";

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

/** A policy test as written: a request and what should become of it. */
export interface RawTest {
  readonly name: string | null;
  readonly request: RequestSpec;
  readonly expect: "allow" | "block";
  /** The rule that should decide. */
  readonly rule: string | null;
  readonly span: Span;
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
const TEST_FIELDS = [
  "name",
  "url",
  "method",
  "headers",
  "dns",
  "record_type",
  "connect",
  "tool",
  "args",
  "cwd",
  "agent",
  "address",
  "expect",
  "rule",
];
const EGRESS_FIELDS = ["mode", "ports", "allow_private_ips", "tls"];

const ID_PATTERN = /^[A-Za-z0-9][A-Za-z0-9_.-]*$/;
const DEFINITION_NAME_PATTERN = /^[A-Za-z_][A-Za-z0-9_]*$/;

/** Words people bring from other firewalls. */
const ACTION_SYNONYMS: Readonly<Record<string, string>> = {
  accept: "allow",
  permit: "allow",
  deny: "block",
  drop: "block",
  reject: "block",
};

const YAML_MESSAGES: Readonly<Record<string, Finding>> = {
  TAB_AS_INDENT: {
    code: "rules.yaml",
    message: "YAML error: a tab is used for indentation",
    hint: "Indent with spaces.",
  },
  BAD_INDENT: {
    code: "rules.yaml",
    message: "YAML error: this line is indented differently from its neighbours",
    hint: "Give all fields of one rule the same indentation.",
  },
  BLOCK_AS_IMPLICIT_KEY: {
    code: "rules.yaml",
    message: "YAML error: a value with fields of its own cannot stand on this line",
    hint: "Check the indentation, and quote a text that contains ': '.",
  },
  MULTILINE_IMPLICIT_KEY: {
    code: "rules.yaml",
    message: "YAML error: this line is neither a field nor the continuation of one",
    hint: "Check for a missing ':' after the field's name, or a missing quote above.",
  },
  TAG_RESOLVE_FAILED: {
    code: "rules.yaml",
    message: "YAML error: a value that starts with '!' must stand in quotes",
    hint: "Put the condition between single quotes.",
  },
  MISSING_CHAR: {
    code: "rules.yaml",
    message: "YAML error: a closing quote, bracket or comma is missing here or above",
    hint: 'Check the quotes: a condition that contains " is best put between single quotes.',
  },
  UNEXPECTED_TOKEN: {
    code: "rules.yaml",
    message: "YAML error: unexpected text",
    hint: "Put a condition between single quotes, or after '|' on lines of its own.",
  },
};

/** The parser recurses; it may report its own exhausted stack, or throw (ADV-AGENT-10). */
const STACK_EXHAUSTED = /call stack|stack overflow/i;
const TOO_DEEP: Finding = {
  code: "rules.yaml",
  message: "YAML error: the file is nested too deeply",
};

function describe(node: unknown): string {
  if (isMap(node)) return "a mapping";
  if (isSeq(node)) return "a list";
  if (!isScalar(node) || isNothing(node)) return "nothing";
  return typeof node.value === "string"
    ? `'${node.value.length > 40 ? `${node.value.slice(0, 40)}…` : node.value}'`
    : String(node.value);
}

/** A field with nothing after it, as when every rule below was commented out. */
function isNothing(node: unknown): boolean {
  return node === null || (isScalar(node) && node.value === null);
}

/** The fields of a mapping by name. */
class Fields {
  readonly #values = new Map<string, unknown>();
  /** Names that were written, but wrongly: what is missing for that has been reported. */
  readonly #reported = new Set<string>();

  set(name: string, value: unknown): void {
    this.#values.set(name, value);
  }

  report(name: string): void {
    this.#reported.add(name);
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }

  get(name: string): unknown {
    return this.#values.get(name);
  }

  /** Whether the field is neither there nor was reported as wrong. */
  isMissing(name: string): boolean {
    return !this.#values.has(name) && !this.#reported.has(name);
  }

  /** Whether something was reported. */
  get isSound(): boolean {
    return this.#reported.size === 0;
  }

  [Symbol.iterator](): Iterator<[string, unknown]> {
    return this.#values[Symbol.iterator]();
  }
}

/** Reads one file; everything that is wrong with it goes to `report`. */
class FileReader {
  readonly #source: Source;
  readonly #report: (diagnostic: Diagnostic) => void;

  constructor(source: Source, report: (diagnostic: Diagnostic) => void) {
    this.#source = source;
    this.#report = report;
  }

  #error(place: unknown, finding: Finding): void {
    this.#report(this.#source.diagnostic("error", this.#span(place), finding));
  }

  #span(place: unknown): Span {
    if (isNode(place) && place.range) return { start: place.range[0], end: place.range[1] };
    return { start: 0, end: 0 };
  }

  read(): RawFile | null {
    const root = this.#parse();
    if (root === null) return null;
    const fields = this.#fields(root, FILE_FIELDS, "a rule file");
    this.#checkVersion(fields.get("version"), root);
    const rules = fields.get("rules");
    return {
      source: this.#source,
      definitions: this.#definitions(fields.get("definitions")),
      rules: this.#rules(rules),
      tests: this.#tests(fields.get("tests")),
      hasRules: isSeq(rules) && rules.items.length > 0,
    };
  }

  /** The top-level mapping of the only document, or null after reporting why there is none. */
  #parse(): YAMLMap | null {
    const documents = this.#documents();
    if (documents === null) return null;
    const [problem] = documents
      .flatMap((each) => [...each.errors, ...each.warnings])
      .sort((a, b) => a.pos[0] - b.pos[0]);
    if (problem !== undefined) {
      // The others mostly follow from the first.
      this.#yamlError(problem);
      return null;
    }
    const [first, second] = documents;
    if (second !== undefined) {
      const start = second.range?.[0] ?? 0;
      this.#report(this.#source.diagnostic("error", { start, end: start + 3 }, {
        code: "rules.several_documents",
        message: "the file holds more than one YAML document",
        hint: "Put the second one into a file of its own.",
      }));
      return null;
    }
    const root = first?.contents;
    if (isMap(root)) return root;
    this.#error(root, {
      code: "rules.shape",
      message: root === null || root === undefined
        ? "the file is empty"
        : "a rule file must be a mapping of fields",
      hint: 'Start it with: version: "1"',
    });
    return null;
  }

  #documents(): Document[] | null {
    try {
      // Duplicate keys are ours to report: with the key's name.
      const options = { uniqueKeys: false, prettyErrors: false, version: "1.2" } as const;
      return [...parseAllDocuments(this.#source.text, options)];
    } catch (thrown) {
      if (!STACK_EXHAUSTED.test(messageOf(thrown))) throw thrown;
      this.#report(this.#source.diagnostic("error", { start: 0, end: 0 }, TOO_DEEP));
      return null;
    }
  }

  #yamlError(error: Pick<YAMLParseError, "code" | "message" | "pos">): void {
    const finding = STACK_EXHAUSTED.test(error.message) ? TOO_DEEP : YAML_MESSAGES[error.code] ??
      { code: "rules.yaml", message: `YAML error: ${error.message}` };
    this.#report(
      this.#source.diagnostic("error", { start: error.pos[0], end: error.pos[1] }, finding),
    );
  }

  /** The values of a mapping by name; unknown, repeated and non-text keys are reported. */
  #fields(map: YAMLMap, known: readonly string[] | null, what: string): Fields {
    const fields = new Fields();
    for (const { key, value } of map.items) {
      if (!isScalar(key) || typeof key.value !== "string") {
        this.#error(key, {
          code: "rules.field_name",
          message: `a field name must be text, not ${describe(key)}`,
        });
        continue;
      }
      const name = key.value;
      if (fields.has(name)) {
        this.#error(key, {
          code: "rules.duplicate_field",
          message: `field '${name}' appears twice in ${what}`,
          hint: "Keep one of them.",
        });
        continue;
      }
      if (known !== null && !known.includes(name)) {
        const meant = nearest(name, known);
        fields.report(meant ?? name);
        this.#error(key, this.#unknownField(name, known, what, meant));
        continue;
      }
      if (isAlias(value)) {
        fields.report(name);
        this.#error(value, {
          code: "rules.alias",
          message: "YAML aliases (*name) are not supported",
          hint: "Write the value out, or use definitions and $name.",
        });
        continue;
      }
      fields.set(name, value);
    }
    return fields;
  }

  #unknownField(
    name: string,
    known: readonly string[],
    what: string,
    meant: string | null,
  ): Finding {
    if (name === "enrich") {
      return {
        code: "rules.enrich",
        message: "'enrich' is reserved and not supported",
        hint: "Remove it.",
      };
    }
    return {
      code: "rules.unknown_field",
      message: `unknown field '${name}' in ${what}`,
      hint: meant === null ? `Known fields: ${known.join(", ")}.` : `Did you mean '${meant}'?`,
    };
  }

  #checkVersion(node: unknown, root: YAMLMap): void {
    if (isScalar(node) && node.value === "1") return;
    const hint = 'Outcall reads: version: "1"';
    if (node === undefined) {
      this.#error(root, { code: "rules.version", message: "'version' is missing", hint });
    } else if (isScalar(node) && typeof node.value === "number") {
      const message = `version must be a text, not the number ${node.value}`;
      this.#error(node, { code: "rules.version", message, hint });
    } else {
      const message = `version ${describe(node)} is not supported`;
      this.#error(node, { code: "rules.version", message, hint });
    }
  }

  /** A non-empty text, or null after reporting. */
  #text(node: unknown, what: string): ScalarText | null {
    if (isScalar(node) && typeof node.value === "string" && node.value.trim() !== "") {
      return scalarText(node as Scalar, node.value, this.#source.text);
    }
    this.#error(node, {
      code: "rules.type",
      message: `${what} must be a text, not ${
        isScalar(node) && typeof node.value === "string" ? "an empty one" : describe(node)
      }`,
      hint: isScalar(node) && node.value !== null && typeof node.value !== "string"
        ? "Put quotes around it."
        : undefined,
    });
    return null;
  }

  #boolean(node: unknown, what: string, absent: boolean): boolean {
    if (node === undefined) return absent;
    if (isScalar(node) && typeof node.value === "boolean") return node.value;
    this.#error(node, {
      code: "rules.type",
      message: `${what} must be true or false, not ${describe(node)}`,
    });
    return absent;
  }

  /** One of `allowed`, or null after reporting. */
  #choice<T extends string>(
    node: unknown,
    what: string,
    allowed: readonly T[],
    synonyms: Readonly<Record<string, string>> = {},
  ): T | null {
    const value = isScalar(node) ? node.value : undefined;
    const found = allowed.find((each) => each === value);
    if (found !== undefined) return found;
    const meant = typeof value === "string"
      ? synonyms[value.toLowerCase()] ?? nearest(value, allowed)
      : null;
    this.#error(node, {
      code: "rules.type",
      message: `${what} must be ${allowed.map((each) => `'${each}'`).join(" or ")}, not ${
        describe(node)
      }`,
      hint: meant === null ? undefined : `Did you mean '${meant}'?`,
    });
    return null;
  }

  #definitions(node: unknown): ReadonlyMap<string, ScalarText> {
    const definitions = new Map<string, ScalarText>();
    if (node === undefined || isNothing(node)) return definitions;
    if (!isMap(node)) {
      this.#error(node, {
        code: "rules.type",
        message: `'definitions' must be a mapping of names to conditions, not ${describe(node)}`,
      });
      return definitions;
    }
    for (const [name, value] of this.#fields(node, null, "'definitions'")) {
      if (!DEFINITION_NAME_PATTERN.test(name)) {
        this.#error(value, {
          code: "rules.definition_name",
          message: `'${name}' cannot be a definition's name`,
          hint: "Use letters, digits and underscores, with no digit first.",
        });
        continue;
      }
      const text = this.#text(value, `definition '${name}'`);
      if (text !== null) definitions.set(name, text);
    }
    return definitions;
  }

  #rules(node: unknown): RawRule[] {
    if (node === undefined || isNothing(node)) return [];
    if (!isSeq(node)) {
      this.#error(node, {
        code: "rules.type",
        message: `'rules' must be a list, not ${describe(node)}`,
        hint: "Start each rule with '- id: …'.",
      });
      return [];
    }
    return node.items.flatMap((item) => this.#rule(item) ?? []);
  }

  #tests(node: unknown): RawTest[] {
    if (node === undefined || isNothing(node)) return [];
    if (isSeq(node)) return node.items.flatMap((item) => this.#test(item) ?? []);
    this.#error(node, {
      code: "rules.type",
      message: `'tests' must be a list, not ${describe(node)}`,
      hint: "For example: - { url: https://api.example.com/, expect: allow }",
    });
    return [];
  }

  #test(node: unknown): RawTest | null {
    if (!isMap(node)) {
      this.#error(node, {
        code: "rules.type",
        message: `a test must be a mapping of fields, not ${describe(node)}`,
        hint: "For example: - { url: https://api.example.com/, expect: allow }",
      });
      return null;
    }
    const fields = this.#fields(node, TEST_FIELDS, "a test");
    const optional = (name: string): Record<string, string> => {
      const text = fields.has(name) ? this.#text(fields.get(name), `'${name}'`) : null;
      return text === null ? {} : { [name]: text.value };
    };
    const request: RequestSpec = {
      ...optional("url"),
      ...optional("method"),
      ...optional("dns"),
      ...optional("record_type"),
      ...optional("connect"),
      ...optional("tool"),
      ...optional("cwd"),
      ...optional("agent"),
      ...optional("address"),
      ...(fields.has("headers") ? { headers: this.#headers(fields.get("headers")) } : {}),
      ...(fields.has("args") ? { args: this.#arguments(fields.get("args")) } : {}),
    };
    const name = fields.has("name") ? this.#text(fields.get("name"), "'name'") : null;
    const rule = fields.has("rule") ? this.#text(fields.get("rule"), "'rule'") : null;
    if (fields.isMissing("expect")) {
      this.#error(node.items[0]?.key, {
        code: "rules.missing_field",
        message: "a test has no 'expect'",
        hint: "Add: expect: allow, or: expect: block",
      });
    }
    if (!fields.isSound || !fields.has("expect")) return null;
    const expect = this.#choice(
      fields.get("expect"),
      "'expect'",
      ["allow", "block"] as const,
      ACTION_SYNONYMS,
    );
    if (expect === null) return null;
    return {
      name: name?.value ?? null,
      request,
      expect,
      rule: rule?.value ?? null,
      span: this.#span(node.items[0]?.key),
    };
  }

  #headers(node: unknown): Record<string, string> {
    const headers: Record<string, string> = {};
    if (!isMap(node)) {
      const message = `'headers' must be a mapping of names to texts, not ${describe(node)}`;
      this.#error(node, { code: "rules.type", message });
      return headers;
    }
    for (const [name, value] of this.#fields(node, null, "'headers'")) {
      headers[name] = this.#text(value, `header '${name}'`)?.value ?? "";
    }
    return headers;
  }

  #arguments(node: unknown): string[] {
    if (isSeq(node)) {
      return node.items.flatMap((item) => this.#text(item, "an argument")?.value ?? []);
    }
    const message = `'args' must be a list of texts, not ${describe(node)}`;
    this.#error(node, { code: "rules.type", message, hint: "For example: args: [push, --force]" });
    return [];
  }

  #rule(node: unknown): RawRule | null {
    if (!isMap(node)) {
      this.#error(node, {
        code: "rules.type",
        message: isAlias(node)
          ? "YAML aliases (*name) are not supported"
          : `a rule must be a mapping of fields, not ${describe(node)}`,
        hint: "Start each rule with '- id: …'.",
      });
      return null;
    }
    const fields = this.#fields(node, RULE_FIELDS, "a rule");
    const id = this.#id(fields, node);
    const condition = this.#required(fields, "condition", node);
    const action = this.#action(fields, node);
    const priority = this.#priority(fields.get("priority"));
    const log = this.#boolean(fields.get("log"), "'log'", false);
    const description = fields.has("description")
      ? this.#text(fields.get("description"), "'description'")?.value ?? null
      : null;
    const egress = this.#egress(fields.get("egress"), action);
    if (id === null || condition === null || action === null) return null;
    return { id, condition, action, priority, log, description, egress };
  }

  #required(fields: Fields, name: string, rule: YAMLMap): ScalarText | null {
    if (fields.has(name)) return this.#text(fields.get(name), `'${name}'`);
    if (fields.isMissing(name)) this.#missing(name, rule);
    return null;
  }

  #missing(name: string, rule: YAMLMap): void {
    this.#error(rule.items[0]?.key, {
      code: "rules.missing_field",
      message: `a rule has no '${name}'`,
      hint: "A rule needs id, condition and action.",
    });
  }

  #id(fields: Fields, rule: YAMLMap): ScalarText | null {
    const id = this.#required(fields, "id", rule);
    if (id === null) return null;
    if (id.value.length <= LIMITS.idLength && ID_PATTERN.test(id.value)) return id;
    this.#error(fields.get("id"), {
      code: "rules.id",
      message: `'${id.value.slice(0, 40)}' cannot be a rule's id`,
      hint:
        `Use at most ${LIMITS.idLength} letters, digits, '.', '_' and '-', with a letter or digit first.`,
    });
    return null;
  }

  #action(fields: Fields, rule: YAMLMap): "allow" | "block" | null {
    if (!fields.has("action")) {
      if (fields.isMissing("action")) this.#missing("action", rule);
      return null;
    }
    const node = fields.get("action");
    if (isScalar(node) && node.value === "enrich") {
      this.#error(node, {
        code: "rules.enrich",
        message: "action 'enrich' is reserved and not supported",
        hint: "Use 'allow' or 'block'.",
      });
      return null;
    }
    return this.#choice(node, "'action'", ["allow", "block"] as const, ACTION_SYNONYMS);
  }

  #priority(node: unknown): number {
    if (node === undefined) return DEFAULT_PRIORITY;
    const value = isScalar(node) ? node.value : undefined;
    const valid = typeof value === "number" && Number.isInteger(value) &&
      value >= MIN_PRIORITY && value <= MAX_PRIORITY;
    if (valid) return value;
    this.#error(node, {
      code: "rules.type",
      message: `'priority' must be a whole number, not ${describe(node)}`,
      hint: `Lower numbers are judged first; without it a rule has ${DEFAULT_PRIORITY}.`,
    });
    return DEFAULT_PRIORITY;
  }

  #egress(node: unknown, action: "allow" | "block" | null): Egress | null {
    if (node === undefined) return action === "allow" ? DEFAULT_EGRESS : null;
    if (action === "block") {
      this.#error(node, {
        code: "rules.egress",
        message: "'egress' is for allow rules: a block rule lets nothing out",
        hint: "Remove it.",
      });
      return null;
    }
    if (!isMap(node)) {
      this.#error(node, {
        code: "rules.type",
        message: `'egress' must be a mapping of fields, not ${describe(node)}`,
        hint: "For example: egress: { mode: proxy }",
      });
      return null;
    }
    const fields = this.#fields(node, EGRESS_FIELDS, "'egress'");
    this.#checkMode(fields.get("mode"));
    const ports = this.#ports(fields.get("ports"));
    const tls = fields.has("tls")
      ? this.#choice(fields.get("tls"), "'tls'", ["sni", "any"] as const)
      : DEFAULT_EGRESS.tls;
    return {
      mode: "proxy",
      ...(ports === null ? {} : { ports }),
      allowPrivateIps: this.#boolean(
        fields.get("allow_private_ips"),
        "'allow_private_ips'",
        DEFAULT_EGRESS.allowPrivateIps,
      ),
      tls: tls ?? DEFAULT_EGRESS.tls,
    };
  }

  #checkMode(node: unknown): void {
    if (node === undefined) return;
    const mode = this.#choice(node, "'mode'", ["proxy", "direct_ip", "intercept"] as const);
    if (mode === "direct_ip") {
      this.#error(node, {
        code: "rules.egress_mode",
        message: "mode 'direct_ip' is not available: this version opens nothing in the kernel",
        hint: "Use mode: proxy.",
      });
    } else if (mode === "intercept") {
      this.#error(node, {
        code: "rules.egress_mode",
        message: "mode 'intercept' needs a certificate authority, and none is loaded",
        hint: "Use mode: proxy; HTTPS is then matched by host name.",
      });
    }
  }

  /** Destination ports, or null where none are given. */
  #ports(node: unknown): number[] | null {
    if (node === undefined) return null;
    const items = isSeq(node) ? node.items : [];
    const ports = items.flatMap((item) => {
      const value = isScalar(item) ? item.value : undefined;
      const valid = typeof value === "number" && Number.isInteger(value) && value >= 1 &&
        value <= 65_535;
      if (valid) return [value];
      this.#error(item, {
        code: "rules.type",
        message: `a port must be a number from 1 to 65535, not ${describe(item)}`,
      });
      return [];
    });
    if (!isSeq(node) || items.length === 0) {
      this.#error(node, {
        code: "rules.type",
        message: `'ports' must be a list of ports, not ${
          isSeq(node) ? "an empty one" : describe(node)
        }`,
        hint: "For example: ports: [443, 8443]",
      });
    }
    return ports;
  }
}

/** Reads the shape of one rule file; null when nothing of it could be read. */
export function readDocument(
  source: Source,
  report: (diagnostic: Diagnostic) => void,
): RawFile | null {
  return new FileReader(source, report).read();
}
