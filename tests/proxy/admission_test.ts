/** Every reading of a request is judged that the rules could judge otherwise than another. */
import assert from "node:assert/strict";
import fc from "fast-check";
import type { Judge } from "../../lib/policy.ts";
import { type Admission, admit, type PolicyInForce } from "../../lib/proxy/admission.ts";
import { bytesOf } from "../../lib/proxy/bytes.ts";
import { fieldsForUpstream, type Reading, readingsOf } from "../../lib/proxy/facts.ts";
import { parseRequestHead } from "../../lib/proxy/head.ts";
import { Refusal } from "../../lib/proxy/refusal.ts";
import { decide } from "../../lib/rules/decide.ts";
import { RequestReads } from "../../lib/rules/reads.ts";
import { SEED } from "../random.ts";
import { policyOf } from "../rules/support.ts";
import { head } from "./heads.ts";
import { AGENT } from "./support.ts";

const condition = fc.constantFrom(
  '"x-role" in http.headers && http.headers["x-role"] == "admin"',
  'has(http.headers.x_role) && http.headers.x_role == "user"',
  'http.headers.exists(k, k == "x-role")',
  'http.headers.accept == "a, b"',
  'http.path.startsWith("/admin")',
  'http.path == "/a/admin"',
  "http.body_size > 1000",
  'http.path == "/" && http.body_size == 0',
  "true",
);

const rule = fc.record({
  condition,
  action: fc.constantFrom("allow" as const, "block" as const),
});

const request = fc.record({
  path: fc.constantFrom("/", "/admin", "/a/../admin", "/a;v/admin", "/a/%61dmin", "/;/admin"),
  fields: fc.subarray([
    "X-Role: user",
    "X-Role: admin",
    "X_Role: user",
    "x.role: admin",
    "Accept: a",
    "Accept: b",
    "Transfer-Encoding: chunked",
  ]),
});

function readingsOfHead({ path, fields }: { path: string; fields: string[] }): readonly Reading[] {
  const parsed = parseRequestHead(
    bytesOf(head(`POST http://a.example${path} HTTP/1.1`, "Host: a.example", ...fields)),
  );
  assert.ok(parsed.kind === "forward", JSON.stringify(parsed));
  return readingsOf(parsed, fieldsForUpstream(parsed), AGENT);
}

function outcome(policy: PolicyInForce, readings: readonly Reading[]): Admission | unknown[] {
  try {
    return admit(policy, "http", readings);
  } catch (thrown) {
    if (!(thrown instanceof Refusal)) throw thrown;
    const { status, layer, reason, message, details } = thrown;
    return [status, layer, reason, message, details];
  }
}

Deno.test("readings that no rule tells apart are judged once, to the same end as all of them (property)", () => {
  const everything = policyOf({
    condition: 'http.path != "" && http.body_size >= 0 && http.headers.size() >= 0',
  });
  const tellsAll = new RequestReads(everything.rules.map(({ expr }) => expr));
  let judged = 0;
  let possible = 0;
  fc.assert(
    fc.property(fc.array(rule, { maxLength: 4 }), request, (rules, each) => {
      const policy = policyOf(...rules);
      const readings = readingsOfHead(each);
      const judge: Judge = (layer, facts) => ({
        verdict: decide(policy, layer, facts),
        generation: 1,
      });
      const reads = new RequestReads(policy.rules.map(({ expr }) => expr));
      assert.deepEqual(tellsAll.distinct(readings), readings);
      judged += reads.distinct(readings).length;
      possible += readings.length;
      assert.deepEqual(
        outcome({ judge, reads: () => reads }, readings),
        outcome({ judge, reads: () => tellsAll }, readings),
      );
    }),
    { numRuns: 2000, seed: SEED },
  );
  assert.ok(judged < possible / 2, `${judged} of ${possible}`);
});
