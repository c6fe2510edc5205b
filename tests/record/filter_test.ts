/** Filters of decisions. */
import assert from "node:assert/strict";
import { DecisionLog } from "../../lib/decision.ts";
import { type DecisionFilter, matches } from "../../lib/record/filter.ts";
import { blockedName } from "./support.ts";

const log = new DecisionLog();
const BLOCKED = log.record(blockedName("api.example.com"));
const BY_ADDRESS = log.record({ ...blockedName("x"), attempt: { address: "1.1.1.1", port: 53 } });

const CASES: readonly (readonly [DecisionFilter, boolean])[] = [
  [{}, true],
  [{ agent: "worker" }, true],
  [{ agent: "work" }, false],
  [{ verdict: "block" }, true],
  [{ verdict: "allow" }, false],
  [{ layer: "dns" }, true],
  [{ layer: "http" }, false],
  [{ host: "api.example.com" }, true],
  [{ host: "API.example.com" }, true],
  [{ host: "example.com" }, false],
  [{ host: ".example.com" }, true],
  [{ host: ".api.example.com" }, true],
  [{ host: ".ample.com" }, false],
  [{ host: "1.1.1.1" }, false],
  [{ agent: "worker", verdict: "block", layer: "dns", host: ".com" }, true],
  [{ agent: "worker", verdict: "block", layer: "dns", host: ".org" }, false],
];

Deno.test("a decision is wanted when everything that is asked for holds", () => {
  for (const [filter, wanted] of CASES) {
    assert.equal(matches(filter, BLOCKED), wanted, JSON.stringify(filter));
  }
  assert.ok(matches({ host: "1.1.1.1" }, BY_ADDRESS));
  assert.ok(!matches({ host: ".1.1" }, BY_ADDRESS));
});

Deno.test("an agent without a name is asked for by the empty name", () => {
  const unknown = log.record({ ...blockedName("a"), agent: null });
  assert.ok(matches({ agent: "" }, unknown));
  assert.ok(!matches({ agent: "" }, BLOCKED));
});
