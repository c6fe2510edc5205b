/** The shape of a policy test in a rule file. */
import { isMap, isScalar, isSeq } from "yaml";
import type { Span } from "./diagnostic.ts";
import { describe, isNothing, type NodeReader } from "./nodes.ts";
import type { RequestSpec } from "./request.ts";

/** A policy test as written: a request and what should become of it. */
export interface RawTest {
  readonly name: string | null;
  readonly request: RequestSpec;
  readonly expect: "allow" | "block";
  /** The rule that should decide. */
  readonly rule: string | null;
  readonly span: Span;
}

const TEST_FIELDS = [
  "name",
  "url",
  "method",
  "headers",
  "body_size",
  "dns",
  "record_type",
  "connect",
  "direct",
  "tool",
  "args",
  "cwd",
  "agent",
  "address",
  "expect",
  "rule",
];

/** Reads the list of tests; what is wrong with it is reported. */
export function readTests(node: unknown, reader: NodeReader): RawTest[] {
  if (node === undefined || isNothing(node)) return [];
  if (isSeq(node)) return node.items.flatMap((item) => readTest(item, reader) ?? []);
  reader.error(node, {
    code: "rules.type",
    message: `'tests' must be a list, not ${describe(node)}`,
    hint: "For example: - { url: https://api.example.com/, expect: allow }",
  });
  return [];
}

function readTest(node: unknown, reader: NodeReader): RawTest | null {
  if (!isMap(node)) {
    reader.error(node, {
      code: "rules.type",
      message: `a test must be a mapping of fields, not ${describe(node)}`,
      hint: "For example: - { url: https://api.example.com/, expect: allow }",
    });
    return null;
  }
  const fields = reader.fields(node, TEST_FIELDS, "a test");
  const optional = (name: string): Record<string, string> => {
    const text = fields.has(name) ? reader.text(fields.get(name), `'${name}'`) : null;
    return text === null ? {} : { [name]: text.value };
  };
  const bodySize = fields.has("body_size") ? readBodySize(fields.get("body_size"), reader) : null;
  const request: RequestSpec = {
    ...optional("url"),
    ...optional("method"),
    ...optional("dns"),
    ...optional("record_type"),
    ...optional("connect"),
    ...optional("direct"),
    ...optional("tool"),
    ...optional("cwd"),
    ...optional("agent"),
    ...optional("address"),
    ...(fields.has("headers") ? { headers: readHeaders(fields.get("headers"), reader) } : {}),
    ...(bodySize === null ? {} : { body_size: bodySize }),
    ...(fields.has("args") ? { args: readArguments(fields.get("args"), reader) } : {}),
  };
  const name = fields.has("name") ? reader.text(fields.get("name"), "'name'") : null;
  const rule = fields.has("rule") ? reader.text(fields.get("rule"), "'rule'") : null;
  if (fields.isMissing("expect")) {
    reader.error(node.items[0]?.key, {
      code: "rules.missing_field",
      message: "a test has no 'expect'",
      hint: "Add: expect: allow, or: expect: block",
    });
  }
  if (!fields.isSound || !fields.has("expect")) return null;
  const expect = reader.action(fields.get("expect"), "'expect'");
  if (expect === null) return null;
  return {
    name: name?.value ?? null,
    request,
    expect,
    rule: rule?.value ?? null,
    span: reader.span(node.items[0]?.key),
  };
}

function readHeaders(node: unknown, reader: NodeReader): Record<string, string> {
  const headers: Record<string, string> = {};
  if (!isMap(node)) {
    const message = `'headers' must be a mapping of names to texts, not ${describe(node)}`;
    reader.error(node, { code: "rules.type", message });
    return headers;
  }
  for (const [name, value] of reader.fields(node, null, "'headers'")) {
    headers[name] = reader.text(value, `header '${name}'`)?.value ?? "";
  }
  return headers;
}

/** Bytes, or null after reporting. */
function readBodySize(node: unknown, reader: NodeReader): number | null {
  const value = isScalar(node) ? node.value : undefined;
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  reader.error(node, {
    code: "rules.type",
    message: `'body_size' must be a number of bytes, not ${describe(node)}`,
    hint: "In digits alone; for example 10 MiB: body_size: 10485760",
  });
  return null;
}

function readArguments(node: unknown, reader: NodeReader): string[] {
  if (isSeq(node)) {
    return node.items.flatMap((item) => reader.text(item, "an argument")?.value ?? []);
  }
  const message = `'args' must be a list of texts, not ${describe(node)}`;
  reader.error(node, { code: "rules.type", message, hint: "For example: args: [push, --force]" });
  return [];
}
