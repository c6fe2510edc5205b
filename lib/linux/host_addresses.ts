/** Which addresses are this host's own: the proxy must never dial them for an agent (D14). */
import { Ip } from "../net/ip.ts";
import { restrictedRange } from "../net/restricted.ts";

/**
 * Whether `ip` is an address of this host, in whatever spelling: an interface's, loopback (all of
 * 127.0.0.0/8 is local), or unspecified, which Linux connects to the host itself.
 * Looked up afresh, since interfaces come and go.
 */
export function isHostAddress(ip: Ip): boolean {
  const plain = ip.mappedIpv4() ?? ip;
  const range = restrictedRange(plain);
  if (range === "loopback" || range === "unspecified") return true;
  return Deno.networkInterfaces().some(({ address }) => Ip.parse(address)?.equals(plain) ?? false);
}
