import assert from "node:assert/strict";
import { costNs } from "../../lib/rules/cost.ts";
import { LIMITS } from "../../lib/rules/limits.ts";
import { exprOf } from "./support.ts";

function cost(condition: string): number {
  const expr = exprOf(condition);
  assert.ok(expr !== null, condition);
  return costNs(expr);
}

const PATHS = Array.from({ length: 15 }, (_, i) => `http.path.contains("/secret-${i}/")`);

const AFFORDABLE = [
  'http.host == "x.org"',
  `http.host in ${JSON.stringify(Array.from({ length: 1000 }, (_, i) => `h${i}.example.com`))}`,
  'http.path.matches("^/v1/(models|chat)/")',
  'http.path.lowerAscii().contains("admin")',
  PATHS.join(" || "),
  'http.path.split("/").exists(s, s == "..")',
  '"-f" in run.flags || run.args.exists(a, a.startsWith("--force"))',
  'run.args.exists(a, a.matches("^--?[a-z]+=.*$"))',
  'docker.volumes.all(v, v.startsWith("/data/") && !v.contains(".."))',
  'run.args.filter(a, a != "").size() > 3',
  'http.headers.exists(k, k.startsWith("x-secret"))',
];
for (const condition of AFFORDABLE) {
  Deno.test(`a condition that people write is affordable: ${condition.slice(0, 60)}`, () => {
    assert.ok(cost(condition) <= LIMITS.conditionCostNs, `${cost(condition)} ns`);
  });
}

const TOO_EXPENSIVE = [
  "run.args.exists(a, run.flags.exists(b, a == b))",
  "run.args.map(a, run.args).size() == 1",
  'run.args.join(http.path) == ""',
  "http.path.contains(http.path)",
  'http.path.split("").map(c, http.path).size() > 1',
  'run.args.exists(a, run.args.join(" ").contains(a))',
];
for (const condition of TOO_EXPENSIVE) {
  Deno.test(`a condition that can be made slow is refused: ${condition}`, () => {
    assert.ok(cost(condition) > LIMITS.conditionCostNs, `${cost(condition)} ns`);
  });
}

Deno.test("the bound grows with what a condition contains", () => {
  const one = 'http.path.contains("a")';
  assert.ok(cost(`${one} && ${one}`) > cost(one));
  assert.ok(cost(`!(${one})`) >= cost(one));
  assert.ok(cost(`run.args.exists(a, ${one})`) > 1000 * cost(one));
});
