import assert from "node:assert/strict";
import { claimFirewall } from "../../lib/claim.ts";

Deno.test("the firewall has one daemon at a time, and is free when that has ended", () => {
  const directory = Deno.makeTempDirSync();
  try {
    const first = claimFirewall(`${directory}/run`);
    assert.ok(first !== null);
    assert.throws(() => claimFirewall(`${directory}/run`), { code: "daemon.running" });
    first.close();
    claimFirewall(`${directory}/run`)?.close();
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

Deno.test("a place without locks keeps no daemon from closing the firewall", () => {
  const directory = Deno.makeTempDirSync();
  try {
    Deno.writeTextFileSync(`${directory}/file`, "");
    assert.equal(claimFirewall(`${directory}/file`), null);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});
