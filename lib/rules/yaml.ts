/** The YAML of a rule file: one document with a mapping on top, or one diagnostic for people. */
import { type Document, isMap, parseAllDocuments, type YAMLMap, type YAMLParseError } from "yaml";
import { messageOf } from "../errors.ts";
import type { Finding } from "./diagnostic.ts";
import type { NodeReader } from "./nodes.ts";

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

/** The top-level mapping of the only document, or null after reporting why there is none. */
export function parseYaml(reader: NodeReader): YAMLMap | null {
  const documents = parseDocuments(reader);
  if (documents === null) return null;
  const [problem] = documents
    .flatMap((each) => [...each.errors, ...each.warnings])
    .sort((a, b) => a.pos[0] - b.pos[0]);
  if (problem !== undefined) {
    // The others mostly follow from the first.
    reportProblem(reader, problem);
    return null;
  }
  const [first, second] = documents;
  if (second !== undefined) {
    const start = second.range?.[0] ?? 0;
    reader.report(reader.source.diagnostic("error", { start, end: start + 3 }, {
      code: "rules.several_documents",
      message: "the file holds more than one YAML document",
      hint: "Put the second one into a file of its own.",
    }));
    return null;
  }
  const root = first?.contents;
  if (isMap(root)) return root;
  reader.error(root, {
    code: "rules.shape",
    message: root === null || root === undefined
      ? "the file is empty"
      : "a rule file must be a mapping of fields",
    hint: 'Start it with: version: "1"',
  });
  return null;
}

function parseDocuments(reader: NodeReader): Document[] | null {
  try {
    // Duplicate keys are ours to report: with the key's name.
    const options = { uniqueKeys: false, prettyErrors: false, version: "1.2" } as const;
    return [...parseAllDocuments(reader.source.text, options)];
  } catch (thrown) {
    if (!STACK_EXHAUSTED.test(messageOf(thrown))) throw thrown;
    reader.report(reader.source.diagnostic("error", { start: 0, end: 0 }, TOO_DEEP));
    return null;
  }
}

function reportProblem(
  reader: NodeReader,
  error: Pick<YAMLParseError, "code" | "message" | "pos">,
): void {
  const finding = STACK_EXHAUSTED.test(error.message) ? TOO_DEEP : YAML_MESSAGES[error.code] ??
    { code: "rules.yaml", message: `YAML error: ${error.message}` };
  reader.report(
    reader.source.diagnostic("error", { start: error.pos[0], end: error.pos[1] }, finding),
  );
}
