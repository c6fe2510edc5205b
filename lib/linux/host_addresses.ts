/** Which addresses are this host's own: the proxy must never dial them for an agent (D14). */
import { Ip } from "../net/ip.ts";
import { restrictedRange } from "../net/restricted.ts";

/**
 * How long one look at the interfaces serves. A look costs some 70 µs, every tunnel needs several,
 * and a reload asks about all of them at once; an address that has just come to the host is still
 * judged by the rules and by its range.
 */
const MAX_AGE_MS = 100;

let addresses: ReadonlySet<string> = new Set();
let readAtMs = Number.NEGATIVE_INFINITY;

function interfaceAddresses(): ReadonlySet<string> {
  const nowMs = performance.now();
  if (nowMs - readAtMs >= MAX_AGE_MS) {
    addresses = new Set(
      Deno.networkInterfaces().map(({ address }) => Ip.parse(address)?.text ?? address),
    );
    readAtMs = nowMs;
  }
  return addresses;
}

/**
 * Whether `ip` is an address of this host, in whatever spelling: an interface's, loopback (all of
 * 127.0.0.0/8 is local), or unspecified, which Linux connects to the host itself.
 */
export function isHostAddress(ip: Ip): boolean {
  const plain = ip.mappedIpv4() ?? ip;
  const range = restrictedRange(plain);
  if (range === "loopback" || range === "unspecified") return true;
  return interfaceAddresses().has(plain.text);
}
