/** Reading YAML nodes strictly: each value is of the wanted kind, or its mistake is reported. */
import { isAlias, isMap, isNode, isScalar, isSeq, type Scalar, type YAMLMap } from "yaml";
import type { Diagnostic, Finding, Source, Span } from "./diagnostic.ts";
import { type ScalarText, scalarText } from "./scalar.ts";
import { nearest } from "./suggest.ts";

/** Words people bring from other firewalls. */
const ACTION_SYNONYMS: Readonly<Record<string, string>> = {
  accept: "allow",
  permit: "allow",
  deny: "block",
  drop: "block",
  reject: "block",
};

/** What a node is, for an operator. */
export function describe(node: unknown): string {
  if (isMap(node)) return "a mapping";
  if (isSeq(node)) return "a list";
  if (!isScalar(node) || isNothing(node)) return "nothing";
  return typeof node.value === "string"
    ? `'${node.value.length > 40 ? `${node.value.slice(0, 40)}…` : node.value}'`
    : String(node.value);
}

/** A field with nothing after it, as when every rule below was commented out. */
export function isNothing(node: unknown): boolean {
  return node === null || (isScalar(node) && node.value === null);
}

/** The fields of a mapping by name. */
export class Fields {
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

  /** Whether no field was reported as wrong. */
  get isSound(): boolean {
    return this.#reported.size === 0;
  }

  [Symbol.iterator](): Iterator<[string, unknown]> {
    return this.#values[Symbol.iterator]();
  }
}

/** Reads the nodes of one file; what is wrong with them is reported with its place. */
export class NodeReader {
  /**
   * @param source The file.
   * @param report Gets every mistake.
   */
  constructor(
    readonly source: Source,
    readonly report: (diagnostic: Diagnostic) => void,
  ) {}

  /** Reports a mistake at a node; at the file's start where the place is no node. */
  error(place: unknown, finding: Finding): void {
    this.report(this.source.diagnostic("error", this.span(place), finding));
  }

  /** Where a node stands. */
  span(place: unknown): Span {
    if (isNode(place) && place.range) return { start: place.range[0], end: place.range[1] };
    return { start: 0, end: 0 };
  }

  /** The values of a mapping by name; unknown, repeated and non-text keys are reported. */
  fields(map: YAMLMap, known: readonly string[] | null, what: string): Fields {
    const fields = new Fields();
    for (const { key, value } of map.items) {
      if (!isScalar(key) || typeof key.value !== "string") {
        this.error(key, {
          code: "rules.field_name",
          message: `a field name must be text, not ${describe(key)}`,
        });
        continue;
      }
      const name = key.value;
      if (fields.has(name)) {
        this.error(key, {
          code: "rules.duplicate_field",
          message: `field '${name}' appears twice in ${what}`,
          hint: "Keep one of them.",
        });
        continue;
      }
      if (known !== null && !known.includes(name)) {
        const meant = nearest(name, known);
        fields.report(meant ?? name);
        this.error(key, this.#unknownField(name, known, what, meant));
        continue;
      }
      if (isAlias(value)) {
        fields.report(name);
        this.error(value, {
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

  /** A non-empty text, or null after reporting. */
  text(node: unknown, what: string): ScalarText | null {
    if (isScalar(node) && typeof node.value === "string" && node.value.trim() !== "") {
      return scalarText(node as Scalar, node.value, this.source.text);
    }
    this.error(node, {
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

  /** A truth value; `absent` where the field is missing, or wrong after reporting. */
  boolean(node: unknown, what: string, absent: boolean): boolean {
    if (node === undefined) return absent;
    if (isScalar(node) && typeof node.value === "boolean") return node.value;
    this.error(node, {
      code: "rules.type",
      message: `${what} must be true or false, not ${describe(node)}`,
    });
    return absent;
  }

  /** One of `allowed`, or null after reporting. */
  choice<T extends string>(
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
    this.error(node, {
      code: "rules.type",
      message: `${what} must be ${allowed.map((each) => `'${each}'`).join(" or ")}, not ${
        describe(node)
      }`,
      hint: meant === null ? undefined : `Did you mean '${meant}'?`,
    });
    return null;
  }

  /** What a rule does, or a test expects; words of other firewalls are understood in the hint. */
  action(node: unknown, what: string): "allow" | "block" | null {
    return this.choice(node, what, ["allow", "block"] as const, ACTION_SYNONYMS);
  }
}
