import { equal, notEqual } from "node:assert/strict";
import { OutcallError } from "../../lib/errors.ts";
import { applyRuleset, deleteTable, fingerprint, listTable } from "../../lib/linux/nft.ts";
import { Machine } from "../lab/machine.ts";
import { denoCommand } from "../lab/product.ts";
import { labTest } from "../lab/requirements.ts";

const NEEDS = { tools: ["nft", "unshare", "nsenter"] };

const RULE = {
  rule: { handle: 4, expr: [{ counter: { packets: 1, bytes: 60 } }, { drop: null }] },
};
const SET = { set: { name: "bridges", handle: 2, elem: ["outcall0", "outcall1"] } };

Deno.test("fingerprint() sees no difference in handles, counters, versions and set order", () => {
  equal(
    fingerprint([{ metainfo: { version: "1.0.6" } }, RULE, SET]),
    fingerprint([
      { metainfo: { version: "1.0.9" } },
      { rule: { handle: 9, expr: [{ counter: { packets: 7, bytes: 0 } }, { drop: null }] } },
      { set: { name: "bridges", handle: 3, elem: ["outcall1", "outcall0"] } },
    ]),
  );
});

Deno.test("fingerprint() sees every other difference", () => {
  const original = fingerprint([RULE, SET]);
  const others: readonly (readonly unknown[])[] = [
    [],
    [RULE],
    [SET, RULE],
    [RULE, SET, RULE],
    [{ rule: { ...RULE.rule, expr: [{ counter: {} }, { accept: null }] } }, SET],
    [RULE, { set: { ...SET.set, elem: ["outcall0"] } }],
    [RULE, { set: { ...SET.set, elem: ["outcall0", "outcall2"] } }],
  ];
  for (const other of others) notEqual(fingerprint(other), original, JSON.stringify(other));
});

/** Runs one function of nft.ts inside a machine; prints what came of it. */
const CALLS: Readonly<Record<string, () => Promise<unknown>>> = {
  apply: () => applyRuleset("table inet outcall { chain c { drop; }; }\n"),
  refused: () =>
    applyRuleset("table inet outcall { chain d { }; }\nadd rule inet nowhere x drop\n"),
  list: () => listTable("inet", "outcall"),
  delete: () => deleteTable("inet", "outcall"),
};

async function call(machine: Machine, name: string): Promise<string> {
  return (await machine.must([...denoCommand(new URL(import.meta.url)), name])).trim();
}

if (import.meta.main) {
  try {
    const result = await CALLS[Deno.args[0] ?? ""]?.();
    console.log(Array.isArray(result) ? `${result.length} objects` : String(result));
  } catch (error) {
    if (!(error instanceof OutcallError)) throw error;
    console.log(`${error.code}: ${error.message}`);
  }
  Deno.exit(); // pipes that nobody closes would keep this program alive
} else {
  labTest(
    "applyRuleset() applies all or nothing; listTable() knows what is not there",
    NEEDS,
    async () => {
      await using machine = await Machine.start("host");
      equal(await call(machine, "list"), "null");
      equal(
        await call(machine, "delete"),
        "bridge.nftables: nft failed: /dev/stdin:1:19-25: Error: Could not process rule: No such file or directory",
      );
      equal(await call(machine, "apply"), "undefined");
      equal(await call(machine, "list"), "4 objects"); // metainfo, table, chain, rule
      equal((await call(machine, "refused")).startsWith("bridge.nftables: nft failed: "), true);
      equal(await call(machine, "list"), "4 objects");
      equal(await call(machine, "delete"), "undefined");
      equal(await call(machine, "list"), "null");
    },
  );

  labTest("an nft that hangs, or prints without end, is given up", NEEDS, async (t) => {
    await using machine = await Machine.start("host");
    await t.step("prints without end", async () => {
      await machine.write("/usr/local/bin/nft", "#!/bin/sh\nexec yes\n", 0o755);
      equal(await call(machine, "list"), "bridge.nft_output: nft printed more than 16 MiB");
    });
    await t.step("hangs, with a child that keeps the pipes open", async () => {
      await machine.write("/usr/local/bin/nft", "#!/bin/sh\nsleep 1000\n", 0o755);
      equal(await call(machine, "list"), "bridge.nft_timeout: nft did not finish within 10 s");
    });
  });
}
