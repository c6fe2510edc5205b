/** `outcall rules explain`: what every layer says to a hypothetical request, and why. */
import type { CommandUnknownOpts } from "@commander-js/extra-typings";
import type { ExplainResult, ExplainStep } from "../api/replies.ts";
import type { Clause, ExplainedRule, Truth } from "../rules/explain.ts";
import type { RequestSpec } from "../rules/request.ts";
import { oneLine } from "./render.ts";
import type { Run } from "./run.ts";
import { header, words } from "./values.ts";

/** Longest value of a fact that is worth a place on the line. */
const MAX_VALUE_LENGTH = 60;

/** Adds the command to `rules`. */
export function addExplainCommand(rules: CommandUnknownOpts, run: Run): void {
  rules.command("explain")
    .description(
      "explain what the rules say to a request, layer by layer: give --url, --dns, --connect or --tool; sends nothing",
    )
    .option("--agent <name>", "as the agent of this name")
    .option("--url <url>", "a request to an http or https URL")
    .option("--method <method>", "of --url (default: GET)")
    .option("--header <name:value>", "of --url, plain http only; repeatable", header, {})
    .option("--dns <name>", "a name to be resolved")
    .option("--type <type>", "record type of --dns (default: A)")
    .option("--connect <host:port>", "a tunnel through the proxy (port 443 unless given)")
    .option("--tool <name>", "a tool to be run")
    .option("--args <words>", "arguments of --tool, separated by spaces", words)
    .option("--cwd <path>", "working directory of --tool")
    .option("--address <ip>", "what the name resolves to, for conditions on network.ip")
    .action((options) =>
      run(async (client) => {
        const { type, header: headers, ...request } = options;
        const result = await client.explain({
          ...request,
          ...(type === undefined ? {} : { record_type: type }),
          ...(Object.keys(headers).length === 0 ? {} : { headers }),
        });
        return { json: result, lines: lines(result, options) };
      })
    );
}

function lines({ request, decision, steps }: ExplainResult, spec: RequestSpec): string[] {
  return [
    `${decision.toUpperCase()}  ${request}`,
    ...steps.flatMap((step) => ["", ...stepLines(step)]),
    ...notes(spec, steps),
  ];
}

/** What else an operator should know. */
function notes(spec: RequestSpec, steps: ExplainResult["steps"]): string[] {
  const all = [...addressNote(steps), ...encryptionNote(spec, steps)];
  return all.length === 0 ? [] : ["", ...all];
}

/** An allowed request whose rule still waits for the address. */
function addressNote(steps: ExplainResult["steps"]): string[] {
  const last = steps.at(-1);
  if (last === undefined || last.layer === "dns" || last.rule?.truth !== "pending") return [];
  return ["note: allowed only if network.ip suits the rule: give --address to have it judged."];
}

/** What an operator may expect to matter and does not. */
function encryptionNote({ url, method }: RequestSpec, steps: ExplainResult["steps"]): string[] {
  const parsed = url === undefined ? null : URL.parse(url);
  if (parsed?.protocol !== "https:") return [];
  const failed = Object.keys(steps.at(-1)?.nearest?.failed?.facts ?? {});
  const isAbout = method !== undefined || parsed.pathname !== "/" ||
    failed.some((fact) => fact.startsWith("http.") && fact !== "http.host");
  if (!isAbout) return [];
  return ["note: in HTTPS nobody sees method, path and headers: no rule can judge them."];
}

function place({ id, file, line }: ExplainedRule): string {
  return `${id} (${file}:${line})`;
}

function stepLines({ layer, decision, reason, error, rule, nearest }: ExplainStep): string[] {
  const verdict = `${layer.padEnd(10)}${decision.toUpperCase()}  `;
  const shown = rule ?? nearest?.rule ?? null;
  const clauses = shown === null ? [] : clauseLines(shown.clauses);
  if (rule !== null && reason === "rule") return [`${verdict}rule ${place(rule)}`, ...clauses];
  if (rule !== null && reason === "rule_error") {
    return [`${verdict}rule ${place(rule)} fails, which blocks: ${error}`, ...clauses];
  }
  if (rule !== null) {
    return [`${verdict}rule ${place(rule)} allows the host, but not this port`, ...clauses];
  }
  if (nearest === null) return [`${verdict}no rule matches (default policy)`];
  return [
    `${verdict}no rule matches (default policy)`,
    `          nearest: ${place(nearest.rule)}`,
    ...(nearest.failed === null ? [] : [`          fails on: ${oneLine(nearest.failed.text)}`]),
    ...clauses,
  ];
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
