/** Network interfaces of this namespace by their kernel index. */
import { bindLibc } from "./libc.ts";
import { readCString } from "./netlink.ts";

/** IF_NAMESIZE (include/uapi/linux/if.h). */
const NAME_BYTES = 16;

const libc = bindLibc({
  if_indextoname: { parameters: ["u32", "buffer"], result: "pointer" },
});

/** The interface's name, or null when there is none with this index. */
export function deviceName(index: number): string | null {
  const name = new Uint8Array(NAME_BYTES);
  return libc.if_indextoname(index, name) === null ? null : readCString(name);
}
