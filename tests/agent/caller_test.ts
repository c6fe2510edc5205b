import { deepEqual, equal, throws } from "node:assert/strict";
import { containerOf, localAddresses } from "../../lib/agent/caller.ts";

const A = "a".repeat(64);
const B = "b".repeat(64);

Deno.test("containerOf() knows Docker's spellings of a control group (S013-FR-003)", () => {
  for (
    const path of [`/docker/${A}`, `/system.slice/docker-${A}.scope`, `/some/parent/${A}`]
  ) equal(containerOf(`0::${path}\n`), A, path);
  equal(containerOf(`9:name=systemd:/docker/${A}\n8:pids:/docker/${A}\n0::/\n`), A);
  equal(containerOf(`0::/../docker-${A}.scope\n`), A); // seen from another group's namespace
});

Deno.test("containerOf() takes no part of an id, and none that is embedded (ADV-AGENT-16)", () => {
  for (
    const part of [
      "a".repeat(63),
      "a".repeat(65),
      "A".repeat(64),
      `x${A}`,
      `${A}.slice`,
      `docker-${A}`.slice(0, -1),
      `docker-${A}.scope.evil`,
    ]
  ) equal(containerOf(`0::/docker/${part}\n`), null, part);
  equal(containerOf("0::/user.slice\n"), null);
});

Deno.test("containerOf() takes the outermost group: what is nested is the container's own making", () => {
  equal(containerOf(`0::/docker/${A}/${B}\n`), A);
  equal(containerOf(`0::/docker/${A}/docker/${B}/x\n`), A);
  // Groups around the daemon itself are around everybody.
  equal(containerOf(`0::/docker/${A}/inner/${B}\n`, `0::/docker/${A}\n`), B);
});

Deno.test("containerOf() refuses a process whose hierarchies disagree", () => {
  throws(() => containerOf(`9:pids:/docker/${A}\n8:cpu:/docker/${B}\n`), /several containers/);
});

Deno.test("localAddresses() reads what is local, once, and no loopback", () => {
  const fibTrie = `Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.200.0.0/24 2 0 2
        |-- 10.200.0.0
           /24 link UNICAST
        |-- 10.200.0.2
           /32 host LOCAL
        |-- 10.200.0.255
           /32 link BROADCAST
        |-- 127.0.0.1
           /32 host LOCAL
Local:
        |-- 10.200.0.2
           /32 host LOCAL
`;
  deepEqual(localAddresses(fibTrie), ["10.200.0.2"]);
});
