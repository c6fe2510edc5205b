import { deepEqual, equal, ok } from "node:assert/strict";
import { checkProposal } from "../../lib/agent/candidate.ts";

const opens = (condition: string): readonly string[] | null => {
  const text = `version: "1"\nrules:\n  - { id: r, action: allow, condition: '${condition}' }\n`;
  return checkProposal("request.yaml", text).rules[0]?.hosts ?? null;
};

Deno.test("what a proposal opens is never told smaller than it is", () => {
  for (
    const [condition, hosts] of [
      ["true", null],
      ['agent.name == "coder"', null],
      ['agent.name == "coder" || run.tool == "git"', null],
      ['run.tool != "rm" || true', null],
      ["network.port == 443", null],
      ['http.host != "a.example"', null],
      ['run.tool == "git"', []],
      ['run.tool == "git" && agent.name == "coder"', []],
      ['docker.image == "alpine"', []],
      ['run.tool == "git" && http.host == "a.example"', []],
      ['http.host == "b.example" || http.host == "a.example"', ["a.example", "b.example"]],
      ['http.host.endsWith(".a.example") && network.port == 443', ["*.a.example"]],
    ] as const
  ) deepEqual(opens(condition), hosts, condition);
});

Deno.test("a proposal that opens everything is warned of", () => {
  const text = 'version: "1"\nrules:\n  - { id: wide, action: allow, condition: "true" }\n';
  const { warnings } = checkProposal("request.yaml", text);
  ok(warnings.includes('rule "wide" may allow any host'), warnings.join());
});

Deno.test("who a proposal is for is told by what it does, not by what it mentions", () => {
  const isForAll = (condition: string): boolean => {
    const text = `version: "1"\nrules:\n  - { id: r, action: allow, condition: '${condition}' }\n`;
    return checkProposal("request.yaml", text).warnings
      .includes('rule "r" is for every agent, not only for the one that asks');
  };
  const host = 'http.host == "a.example"';
  for (
    const condition of [
      host,
      `agent.name != "coder" && ${host}`,
      `(agent.name == "coder" || agent.name != "coder") && ${host}`,
      `(agent.name == "coder" || true) && ${host}`,
      'run.tool == "git" && agent.name != ""',
    ]
  ) equal(isForAll(condition), true, condition);
  for (
    const condition of [
      `agent.name == "coder" && ${host}`,
      `agent.name in ["coder", "tester"] && ${host}`,
      `agent.name.startsWith("coder-") && ${host}`,
      'run.tool == "git" && agent.name == "coder"',
    ]
  ) equal(isForAll(condition), false, condition);
});

Deno.test("D12: a proposal that opens addresses past the proxy is warned of", () => {
  const text = `version: "1"
rules:
  - id: direct
    condition: agent.name == "coder" && network.hostname == "db.example" && network.port == 5432
    action: allow
    egress: { mode: direct_ip }
`;
  const { warnings } = checkProposal("request.yaml", text);
  const warning = 'rule "direct" opens addresses past the proxy, where nobody sees what is sent';
  ok(warnings.includes(warning), warnings.join());
});

Deno.test("a proposal that asks for longer bodies than usual is warned of", () => {
  const warned = (maxBytes: number): boolean => {
    const text = `version: "1"
rules:
  - id: upload
    condition: agent.name == "coder" && http.host == "up.example" && network.port == 80
    action: allow
    egress: { max_body_bytes: ${maxBytes} }
`;
    return checkProposal("request.yaml", text).warnings
      .includes(`rule "upload" lets bodies of up to ${maxBytes} bytes out`);
  };
  equal(warned(16_777_217), true);
  equal(warned(16_777_216), false);
});
