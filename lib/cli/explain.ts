/** `outcall rules explain`: what every layer says to a hypothetical request, and why. */
import type { CommandUnknownOpts } from "@commander-js/extra-typings";
import type { ExplainResult } from "../api/replies.ts";
import type { RequestSpec } from "../rules/request.ts";
import type { Run } from "./run.ts";
import { stepLines } from "./steps.ts";
import { header, memorySize, words } from "./values.ts";

/** Adds the command to `rules`. */
export function addExplainCommand(rules: CommandUnknownOpts, run: Run): void {
  rules.command("explain")
    .description(
      "explain what the rules say to a request, layer by layer: give --url, --dns, --connect, --direct or --tool; sends nothing",
    )
    .option("--agent <name>", "as the agent of this name")
    .option("--url <url>", "a request to an http or https URL")
    .option("--method <method>", "of --url (default: GET)")
    .option("--header <name:value>", "of --url, plain http only; repeatable", header, {})
    .option("--body-size <size>", "of --url, plain http only, such as 20m (default: 0)", memorySize)
    .option("--dns <name>", "a name to be resolved")
    .option("--type <type>", "record type of --dns (default: A)")
    .option("--connect <host:port>", "a tunnel through the proxy (port 443 unless given)")
    .option("--direct <host:port>", "a connection past the proxy (443 unless given; host:port/udp)")
    .option("--tool <name>", "a tool to be run")
    .option("--args <words>", "arguments of --tool, separated by spaces", words)
    .option("--cwd <path>", "working directory of --tool")
    .option("--address <ip>", "what the name resolves to, for conditions on network.ip")
    .action((options) =>
      run(async (client) => {
        const { type, header: headers, bodySize, ...request } = options;
        const spec: RequestSpec = {
          ...request,
          ...(type === undefined ? {} : { record_type: type }),
          ...(bodySize === undefined ? {} : { body_size: bodySize }),
          ...(Object.keys(headers).length === 0 ? {} : { headers }),
        };
        const result = await client.explain(spec);
        return { json: result, lines: lines(result, spec) };
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
function encryptionNote(
  { url, method, body_size }: RequestSpec,
  steps: ExplainResult["steps"],
): string[] {
  const parsed = url === undefined ? null : URL.parse(url);
  if (parsed?.protocol !== "https:") return [];
  const failed = Object.keys(steps.at(-1)?.nearest?.failed?.facts ?? {});
  const isAbout = method !== undefined || body_size !== undefined || parsed.pathname !== "/" ||
    failed.some((fact) => fact.startsWith("http.") && fact !== "http.host");
  if (!isAbout) return [];
  return ["note: in HTTPS nobody sees method, path, headers and body: no rule can judge them."];
}
