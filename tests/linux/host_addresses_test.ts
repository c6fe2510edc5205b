import { equal } from "node:assert/strict";
import { isHostAddress } from "../../lib/linux/host_addresses.ts";
import { Ip } from "../../lib/net/ip.ts";

function isHost(text: string): boolean {
  const ip = Ip.parse(text);
  if (ip === null) throw new TypeError(text);
  return isHostAddress(ip);
}

Deno.test("isHostAddress() knows loopback, unspecified and mapped spellings of them", () => {
  for (
    const text of ["127.0.0.1", "127.1.2.3", "0.0.0.0", "0.1.2.3", "::1", "::", "::ffff:127.0.0.1"]
  ) {
    equal(isHost(text), true, text);
  }
});

Deno.test("isHostAddress() knows every address of every interface, IPv4-mapped too", () => {
  for (const { address, family } of Deno.networkInterfaces()) {
    equal(isHost(address), true, address);
    if (family === "IPv4") equal(isHost(`::ffff:${address}`), true, address);
  }
});

Deno.test("isHostAddress() does not claim other hosts' addresses", () => {
  for (const text of ["93.184.216.34", "::ffff:93.184.216.34", "2606:2800:220:1::1"]) {
    equal(isHost(text), false, text);
  }
});
