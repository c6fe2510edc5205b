import assert from "node:assert/strict";
import { filterServiceBinding } from "../../lib/dns/svcb.ts";
import { restrictedRange } from "../../lib/net/restricted.ts";

const isPublic = (ip: Parameters<typeof restrictedRange>[0]): boolean => {
  return restrictedRange(ip) === null;
};

function u16(value: number): number[] {
  return [value >> 8, value & 0xff];
}

/** Priority 1, target ".", and these parameters. */
function binding(
  ...params: readonly (readonly [key: number, value: readonly number[]])[]
): Uint8Array {
  return Uint8Array.from([
    ...u16(1),
    0,
    ...params.flatMap(([key, value]) => [...u16(key), ...u16(value.length), ...value]),
  ]);
}

const ALPN = [1, [2, 104, 50]] as const;
const PUBLIC = [93, 184, 216, 34];
const PRIVATE = [10, 0, 0, 1];
const PUBLIC6 = [0x26, 0x06, 0x28, 0, ...new Array<number>(12).fill(1)];
const MAPPED_PRIVATE = [...new Array<number>(10).fill(0), 0xff, 0xff, 192, 168, 0, 1];

Deno.test("a binding without hints and ech passes unchanged", () => {
  const data = binding(ALPN, [3, u16(8443)]);
  assert.deepEqual(filterServiceBinding(data, isPublic), { data, changed: false });
});

Deno.test("private hints are taken out, public ones stay (ADV-DNS-08)", () => {
  assert.deepEqual(
    filterServiceBinding(
      binding(ALPN, [4, [...PRIVATE, ...PUBLIC]], [6, [...MAPPED_PRIVATE, ...PUBLIC6]]),
      isPublic,
    ),
    { data: binding(ALPN, [4, PUBLIC], [6, PUBLIC6]), changed: true },
  );
});

Deno.test("a hint list that is left empty goes altogether (ADV-DNS-06, ADV-DNS-08)", () => {
  assert.deepEqual(
    filterServiceBinding(binding(ALPN, [4, PRIVATE], [6, MAPPED_PRIVATE]), isPublic),
    { data: binding(ALPN), changed: true },
  );
});

Deno.test("ech goes always, and off the mandatory list (D24)", () => {
  assert.deepEqual(
    filterServiceBinding(binding([0, [...u16(1), ...u16(5)]], ALPN, [5, [1, 2, 3]]), () => true),
    { data: binding([0, u16(1)], ALPN), changed: true },
  );
  assert.deepEqual(
    filterServiceBinding(binding([0, u16(5)], ALPN, [5, [1, 2, 3]]), () => true),
    { data: binding(ALPN), changed: true },
  );
});

const malformed: readonly (readonly [string, Uint8Array])[] = [
  ["no target", Uint8Array.of(0, 1)],
  ["a parameter that is cut off", binding(ALPN).slice(0, -1)],
  ["half a parameter head", Uint8Array.of(0, 1, 0, 0, 1, 0)],
  ["keys out of order", binding([4, PUBLIC], ALPN)],
  ["a key twice", binding([4, PUBLIC], [4, PRIVATE])],
  ["a hint of five bytes", binding([4, [...PUBLIC, 1]])],
  ["an empty hint", binding([6, []])],
  ["a mandatory list of odd length", binding([0, [0]])],
];
for (const [what, data] of malformed) {
  Deno.test(`a binding with ${what} is not passed on`, () => {
    assert.equal(filterServiceBinding(data, () => true), null);
  });
}
