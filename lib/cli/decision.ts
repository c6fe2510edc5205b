/** `outcall explain ID`: why a recorded decision came out as it did, and what would change it. */
import type { CommandUnknownOpts } from "@commander-js/extra-typings";
import type { DecisionExplanationReply } from "../api/explain.ts";
import { attemptText } from "../rules/words.ts";
import { labels } from "./render.ts";
import type { Run } from "./run.ts";
import { stepLines } from "./steps.ts";

/** Adds the command to `program`. */
export function addDecisionCommand(program: CommandUnknownOpts, run: Run): void {
  program.command("explain <id>")
    .description("explain a recorded decision, and show the rules that would change it")
    .action((id) =>
      run(async (client) => {
        const explanation = await client.explainDecision(id);
        return { json: explanation, lines: lines(explanation) };
      })
    );
}

type Decision = DecisionExplanationReply["decision"];

function lines(explanation: DecisionExplanationReply): string[] {
  const { decision, then, now, advice, proposals } = explanation;
  return [
    `${decision.verdict.toUpperCase()}  ${attemptText(decision)}`,
    "",
    ...recordLines(explanation),
    ...(then === null ? [] : walkLines(then, decision, now === null ? "" : "Then: ")),
    ...(now === null ? [] : walkLines(now, decision, "Now: ")),
    ...(advice.length === 0 ? [] : ["", ...advice.map((each) => `advice: ${each}`)]),
    ...proposals.flatMap(proposalLines),
  ];
}

function recordLines({ decision, meaning, rules }: DecisionExplanationReply): string[] {
  const { id, time, layer, agent, source, reason, rule, count, tunnel, durationMs } = decision;
  const { address, protocol } = decision.attempt;
  return labels(14, [
    ["Decision", id],
    ["Time", time],
    ["Layer", layer],
    ["Agent", agent === null ? `none (${source})` : agentText(agent)],
    ...(agent?.containerId === undefined ? [] : [["Container", agent.containerId] as const]),
    ...(address === undefined ? [] : [["Address", address] as const]),
    ...(protocol === undefined ? [] : [["Protocol", protocol] as const]),
    ["Reason", `${reason}: ${meaning}`],
    ["Rule", rule === null ? "none" : `${rule.id} (${rule.file}:${rule.line})`],
    ...(count === undefined ? [] : [["Attempts", count] as const]),
    ...(durationMs === undefined ? [] : [["Took", `${durationMs} ms`] as const]),
    ...(tunnel === undefined ? [] : [
      ["Tunnel", `${tunnel.upBytes} bytes up, ${tunnel.downBytes} down; ${tunnel.end}`] as const,
    ]),
    ["Rules", rulesText(rules, decision)],
  ]);
}

function agentText({ name, address, network }: NonNullable<Decision["agent"]>): string {
  return `${name === "" ? "without a name" : name} (${address} on ${network})`;
}

function rulesText(rules: DecisionExplanationReply["rules"], { generation }: Decision): string {
  switch (rules) {
    case "same":
      return `generation ${generation}; they say the same now`;
    case "changed":
      return `generation ${generation}; they have changed since`;
    case "forgotten":
      return `generation ${generation}, which is not kept any more; shown by those of now`;
    case "not_asked":
      return "not asked";
  }
}

/** @param when What to put in front of the generation; empty: no heading. */
function walkLines(
  { generation, steps }: NonNullable<DecisionExplanationReply["then"]>,
  { layer }: Decision,
  when: string,
): string[] {
  const heading = when === "" ? [] : ["", `${when}generation ${generation}`];
  const asked = layer === "agent" && steps.length > 1
    ? ["", "The agent asked beforehand; judged as the layers would:"]
    : [];
  return [...heading, ...asked, ...steps.flatMap((step) => ["", ...stepLines(step)])];
}

/** What a width means, as a heading. */
const WIDTHS = {
  request: "To allow this request",
  host: "To allow this host",
  domain: "To allow this domain",
} as const;

function proposalLines(proposal: DecisionExplanationReply["proposals"][number]): string[] {
  const { width, rule, opens, warnings, in_front: inFront, also_admits: also } = proposal;
  const pasted = inFront === null
    ? "put this under rules"
    : `this, and nothing of ${inFront.id} (${inFront.file}:${inFront.line}, priority ${inFront.priority}) in front of it`;
  return [
    "",
    `${WIDTHS[width]}: ${pasted}:`,
    ...rule.split("\n"),
    ...opens.map((each) => `  opens: ${each}`),
    ...warnings.map((each) => `  warning: ${each}`),
    ...(also.count === 0 ? ["  no other recorded attempt would pass"] : [
      `  ${also.count} other recorded attempt${also.count === 1 ? "" : "s"} would pass:`,
      ...also.examples.map((each) => `    ${each}`),
    ]),
  ];
}
