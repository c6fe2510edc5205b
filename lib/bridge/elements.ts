/** Set elements, checked: nothing that is not a name or an address may become part of nft's text. */
import { Cidr } from "../net/cidr.ts";
import { Ip } from "../net/ip.ts";
import { isInterfaceName } from "./names.ts";
import type { Part } from "./table.ts";

/** An interface's name. @throws RangeError */
export function interfaceName(name: string): string {
  if (!isInterfaceName(name)) throw new RangeError(`'${name}' is not an interface name`);
  return name;
}

/** An IPv4 address in its canonical form. @throws RangeError */
export function ipv4(address: string): string {
  const ip = Ip.parse(address);
  if (ip?.version !== 4) throw new RangeError(`'${address}' is not an IPv4 address`);
  return ip.text;
}

/** An IPv4 network, given in CIDR form. @throws RangeError */
export function ipv4Cidr(subnet: string): Cidr {
  const cidr = Cidr.parse(subnet);
  if (cidr?.network.version !== 4) throw new RangeError(`'${subnet}' is not an IPv4 subnet`);
  return cidr;
}

/** The same as an element of a set. @throws RangeError */
export function ipv4Subnet(subnet: string): Part {
  const { network, prefix } = ipv4Cidr(subnet);
  // nft lists a network of one address as that address.
  return prefix === 32 ? network.text : { prefix: { addr: network.text, len: prefix } };
}
