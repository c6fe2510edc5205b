import { deepEqual, equal, ok } from "node:assert/strict";
import { checkProposal } from "../../lib/agent/candidate.ts";
import { narrowings } from "../../lib/cli/narrow.ts";
import { proposeRules } from "../../lib/shim/propose.ts";

const WIDE = `version: "1"
rules:
  - id: wide # everything of theirs
    condition: >-
      http.host.endsWith(".example.com") ||
      http.host == "example.org"
    action: allow
  - id: never
    condition: http.host == "evil.example"
    action: block
`;

const TRIED = [
  { host: "api.example.com", port: 443 },
  { host: "elsewhere.net", port: 443 },
  { host: "api.example.com", port: 80, method: "GET", path: "/v1" },
];

Deno.test("what is offered narrows by agent, host, port, method and path", () => {
  deepEqual(narrowings(WIDE, "worker", TRIED).map(({ label }) => label), [
    "only the agent worker",
    "only the host example.org",
    "only the host api.example.com",
    "only port 443",
    "only port 80",
    "only GET, by plain HTTP",
    "only the path /v1, by plain HTTP",
  ]);
});

Deno.test("a narrowed file says so, keeps the rest, and loads", () => {
  const [, , host] = narrowings(WIDE, "worker", TRIED);
  ok(host !== undefined);
  const { rules } = checkProposal("request.yaml", host.ruleFile);
  deepEqual(rules.map(({ id, action }) => [id, action]), [["wide", "allow"], ["never", "block"]]);
  deepEqual(rules[0]?.hosts, ["api.example.com"]);
  equal(rules[1]?.condition, 'http.host == "evil.example"');
  ok(host.ruleFile.includes("# everything of theirs"));
  // And can be narrowed further, but not by the same once more.
  const labels = narrowings(host.ruleFile, "worker", TRIED).map(({ label }) => label);
  deepEqual(labels.slice(0, 2), ["only the agent worker", "only port 443"]);
});

Deno.test("what outcall-agent proposes for https has nothing left to narrow", async () => {
  const proposed = await proposeRules("worker", "https://api.example.com/v1", "GET");
  ok(proposed.ok);
  deepEqual(narrowings(proposed.ruleFile, "worker", []), []);
});

Deno.test("names and paths that hold quotes stay texts", () => {
  const hostile = { host: "example.org", method: "GET", path: '/"||true||"\\' };
  for (const { ruleFile } of narrowings(WIDE, "it's", [hostile])) {
    equal(checkProposal("request.yaml", ruleFile).rules[0]?.hosts?.includes("*"), false);
  }
});

Deno.test("a file that does not load offers nothing", () => {
  deepEqual(narrowings("rules: [", "worker", TRIED), []);
  const comment = 'version: "1"\nrules:\n  - { id: a, action: allow, condition: "true // all" }\n';
  for (const { ruleFile } of narrowings(comment, "worker", TRIED)) {
    ok(checkProposal("request.yaml", ruleFile));
  }
});
