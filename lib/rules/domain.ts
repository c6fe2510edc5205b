/** Who owns a name: the domain that somebody registered, by the Public Suffix List. */
import { getDomain } from "tldts";
import { Ip } from "../net/ip.ts";

/**
 * The domain that `host` belongs to, itself included: `example.co.uk` for `a.b.example.co.uk`. Under
 * a suffix where anybody can have a name (`github.io`), that is the one name of its owner. Null for
 * an address, and for a name that is such a suffix itself.
 * @param host In canonical form.
 */
export function ownDomain(host: string): string | null {
  if (Ip.parse(host) !== null) return null;
  return getDomain(host, { allowPrivateDomains: true });
}
