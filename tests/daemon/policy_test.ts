import { deepEqual, equal, ok, rejects } from "node:assert/strict";
import { OutcallError } from "../../lib/errors.ts";
import { ActivePolicy } from "../../lib/policy.ts";

/** A rule file with one rule. */
function fileWith(id: string, egress: string): string {
  return `version: "1"
rules:
  - id: ${id}
    condition: http.host == "${id}.example" && network.port == 443
    action: allow
    egress: ${egress}
`;
}

Deno.test("without a proxy a reload refuses a rule that needs it, and keeps what was in force (ADV-HOST-11b)", async () => {
  const dir = Deno.makeTempDirSync({ prefix: "outcall-policy-" });
  const write = (name: string, text: string): void =>
    Deno.writeTextFileSync(`${dir}/${name}`, text, { mode: 0o644 });
  try {
    Deno.chmodSync(dir, 0o755);
    const policy = new ActivePolicy(dir, false);
    write("a.yaml", fileWith("direct", "{ mode: direct_ip }"));
    await policy.reload();
    const before = { rules: policy.list(), generation: policy.generation };
    for (const egress of ["{ mode: proxy }", "{ ports: [443] }", "{ tls: any }"]) {
      write("b.yaml", fileWith("proxied", egress));
      await rejects(policy.reload(), (thrown) => {
        ok(thrown instanceof OutcallError, egress);
        equal(thrown.code, "rules.invalid");
        equal(
          thrown.message,
          `${dir}/b.yaml:3: rule "proxied" needs the proxy, and the daemon runs with --no-proxy`,
        );
        return true;
      });
      deepEqual({ rules: policy.list(), generation: policy.generation }, before);
    }
    const withProxy = new ActivePolicy(dir, true);
    equal((await withProxy.reload()).rules_loaded, 2);
  } finally {
    Deno.removeSync(dir, { recursive: true });
  }
});
