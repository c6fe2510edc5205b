/** `outcall explain`, over the real policy. */
import { deepEqual, equal, match, ok } from "node:assert/strict";
import { type ServedPolicy, withPolicy } from "../api/policy.ts";
import { connectFacts } from "../rules/support.ts";
import { outcall } from "./outcall.ts";

const RULES = `version: "1"
rules:
  - id: api
    condition: http.host == "api.org" && agent.name == "reader"
    action: allow
`;

function reload(served: ServedPolicy, text: string): Promise<unknown> {
  Deno.writeTextFileSync(`${served.rulesDir}/a.yaml`, text);
  return outcall("--socket", served.path, "rules", "reload");
}

Deno.test("explain tells what decided from what is in force now, and a pasted rule allows it", () =>
  withPolicy({ "a.yaml": RULES }, async (served) => {
    const { id } = served.attempt("connect", connectFacts("api.org", 443, "worker"));
    const first = await outcall("--socket", served.path, "explain", id);
    equal(first.code, 0);
    match(first.out, /^BLOCK {2}CONNECT api\.org:443 by worker\n/);
    match(first.out, /fails on: agent\.name == "reader" \(.*\/a\.yaml:4:42\)/);
    match(first.out, /\nRules: {8}generation 1; they say the same now\n/);
    const [, rule = ""] = /To allow this host: put this under rules:\n(.*?)\n {2}opens/s
      .exec(first.out) ?? [];
    await reload(served, `${RULES}${rule}\n`);
    equal(served.attempt("connect", connectFacts("api.org", 443, "worker")).verdict, "allow");

    const { out } = await outcall("--socket", served.path, "explain", id);
    match(out, /\nRules: {8}generation 1; they have changed since\n/);
    match(
      out,
      /\nThen: generation 1\n(.|\n)*\nconnect {3}BLOCK(.|\n)*\nNow: generation 2\n(.|\n)*\nconnect {3}ALLOW/,
    );
    match(out, /\nadvice: The rules in force now allow it/);
    ok(!out.includes("To allow"));
  }));

Deno.test("explain knows an unknown id for what it is", () =>
  withPolicy({ "a.yaml": RULES }, async (served) => {
    deepEqual(await outcall("--socket", served.path, "explain", "01kz"), {
      code: 1,
      out: "",
      err: 'error: decision not found: "01kz"\n' +
        "hint: It may be older than what is kept, or mistyped: ids are 17 letters and digits.\n",
    });
  }));

Deno.test("explain --json gives the same to programs", () =>
  withPolicy({ "a.yaml": RULES }, async (served) => {
    const { id } = served.attempt("connect", connectFacts("api.org", 443, "worker"));
    const { out } = await outcall("--socket", served.path, "--json", "explain", id);
    const reply = JSON.parse(out);
    deepEqual(
      [reply.ok, reply.decision.id, reply.rules, reply.then.generation, reply.now],
      [true, id, "same", 1, null],
    );
    deepEqual(
      reply.proposals.map(({ width }: { width: string }) => width),
      ["request", "host", "domain"],
    );
  }));

Deno.test("explain shows nothing that steers a terminal, in records and in rules (CWE-150)", () =>
  withPolicy({ "a.yaml": RULES }, async (served) => {
    const { id } = served.decisions.record({
      generation: 1,
      layer: "agent",
      agent: { name: "worker", address: "10.200.0.2", network: "outcall-agent-net" },
      source: "10.200.0.2",
      attempt: { tool: "rm\u001b[2J\u202e" },
      verdict: "block",
      reason: "default",
      rule: null,
    });
    const { out } = await outcall("--socket", served.path, "explain", id);
    ok(out.includes('run.tool == "rm\\u001b[2J\\u202e"'));
    for (const char of ["\u001b", "\u202e"]) ok(!out.includes(char));
  }));
