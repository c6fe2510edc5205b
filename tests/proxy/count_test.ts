import assert from "node:assert/strict";
import { ClientCount } from "../../lib/proxy/clients.ts";

Deno.test("greedy agents cannot lock the others out: the last places are for agents that have few", () => {
  const count = new ClientCount(4096, 512);
  const fill = (address: string): number => {
    let opened = 0;
    while (count.enter(address) === null) opened++;
    return opened;
  };
  const greedy = Array.from({ length: 8 }, (_, i) => fill(`10.200.0.${10 + i}`));
  assert.deepEqual(greedy, [512, 512, 512, 512, 512, 512, 512, 32]);
  assert.equal(count.enter("10.200.0.10"), "agent");
  assert.equal(count.enter("10.200.0.17"), "all");
  // Everybody else still gets in, until there really is no place left.
  const modest = Array.from({ length: 20 }, (_, i) => fill(`10.200.1.${i}`));
  assert.deepEqual(modest, [...Array<number>(15).fill(32), 0, 0, 0, 0, 0]);
  assert.equal(count.total, 4096);
  assert.equal(count.enter("10.200.2.1"), "all");
  // Places that come free are anybody's who has few.
  count.leave("10.200.0.10");
  assert.equal(count.enter("10.200.0.17"), "all");
  assert.equal(count.enter("10.200.2.1"), null);
});
