/** What all parts of netfilter have in common over netlink (include/uapi/linux/netfilter/nfnetlink.h). */

/** Family of messages that are about none. */
export const NFPROTO_UNSPEC = 0;

/** struct nfgenmsg: family u8, version u8, resource id u16 in network byte order. */
export const NFGENMSG_BYTES = 4;

/** The header of a netfilter message, of version 0. */
export function nfgenmsg(family: number, resource = 0): Uint8Array {
  return new Uint8Array([family, 0, resource >> 8, resource & 0xff]);
}
