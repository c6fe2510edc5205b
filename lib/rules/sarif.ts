/** Diagnostics in SARIF 2.1.0 (OASIS), which code hosts and editors show beside the lines. */
import type { Diagnostic } from "./diagnostic.ts";

/** Part of SARIF's object model: what we write. */
export interface SarifLog {
  readonly $schema: string;
  readonly version: "2.1.0";
  readonly runs: readonly SarifRun[];
}

interface SarifRun {
  readonly tool: {
    readonly driver: {
      readonly name: string;
      readonly version: string;
      readonly rules: readonly { readonly id: string }[];
    };
  };
  readonly columnKind: "utf16CodeUnits";
  readonly results: readonly SarifResult[];
}

interface SarifResult {
  readonly ruleId: string;
  readonly level: "error" | "warning";
  readonly message: { readonly text: string };
  readonly locations: readonly unknown[];
}

function result(diagnostic: Diagnostic): SarifResult {
  const { code, severity, message, hint, file, line, column, excerpt } = diagnostic;
  const region = {
    startLine: line,
    startColumn: column,
    ...(excerpt === undefined ? {} : { endColumn: column + excerpt.length }),
  };
  return {
    ruleId: code,
    level: severity,
    message: { text: hint === undefined ? message : `${message}\n${hint}` },
    locations: [{
      physicalLocation: { artifactLocation: { uri: encodeURI(file) }, region },
    }],
  };
}

/**
 * One SARIF log with one run.
 * @param version Outcall's version.
 */
export function toSarif(diagnostics: readonly Diagnostic[], version: string): SarifLog {
  const codes = [...new Set(diagnostics.map(({ code }) => code))].sort();
  return {
    $schema: "https://json.schemastore.org/sarif-2.1.0.json",
    version: "2.1.0",
    runs: [{
      tool: { driver: { name: "outcall", version, rules: codes.map((id) => ({ id })) } },
      columnKind: "utf16CodeUnits",
      results: diagnostics.map(result),
    }],
  };
}
