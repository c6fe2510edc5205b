/**
 * Socket filters: programs that the kernel runs for each packet before it reaches a socket (socket(7),
 * "classic" BPF as in Documentation/networking/filter.rst of the kernel).
 */
import { bindLibc, checked } from "./libc.ts";
import { SOL_SOCKET } from "./sockets.ts";

// include/uapi/asm-generic/socket.h
const SO_ATTACH_FILTER = 26;
const SO_DETACH_FILTER = 27;
const SO_MEMINFO = 55;
/** Position of SK_MEMINFO_DROPS among the 32-bit numbers (include/uapi/linux/sock_diag.h). */
const MEMINFO_DROPS = 8;
const MEMINFO_NUMBERS = 9;

// include/uapi/linux/bpf_common.h, include/uapi/linux/filter.h
const LOAD_WORD = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP_IF_EQUAL = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const RETURN = 0x06; // BPF_RET | BPF_K
/** SKF_NET_OFF: offsets from here on count from the network header. */
const NETWORK_HEADER = 0xfff0_0000;
/** Of the source in an IPv4 header (RFC 791 §3.1). */
const SOURCE_AT = 12;
const KEEP_ALL = 0xffff_ffff;
const DROP = 0;

/** Jumps of a program have 8 bits. */
export const MAX_MUTED_SOURCES = 250;

/** struct sock_filter: code u16, jumps u8 each if true and if false, operand u32. */
const INSTRUCTION_BYTES = 8;
/** struct sock_fprog: length u16, padding, address u64. */
const PROGRAM_BYTES = 16;

const libc = bindLibc({
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
});

// For as long as the kernel may read them, and so for good.
const program = new Uint8Array((MAX_MUTED_SOURCES + 3) * INSTRUCTION_BYTES);
const descriptor = new Uint8Array(PROGRAM_BYTES);

/**
 * Writes the program that loads the source, compares it with each address, and drops what is equal to
 * one; returns how many instructions it has.
 */
function writeMuting(sources: readonly number[]): number {
  const view = new DataView(program.buffer);
  let length = 0;
  const add = (code: number, ifTrue: number, operand: number): void => {
    const at = INSTRUCTION_BYTES * length++;
    view.setUint16(at, code, true);
    view.setUint8(at + 2, ifTrue);
    view.setUint32(at + 4, operand, true);
  };
  add(LOAD_WORD, 0, NETWORK_HEADER + SOURCE_AT);
  // Over the other comparisons and the instruction that keeps.
  for (const [i, source] of sources.entries()) add(JUMP_IF_EQUAL, sources.length - i, source);
  add(RETURN, 0, KEEP_ALL);
  add(RETURN, 0, DROP);
  return length;
}

/**
 * Has the kernel drop what comes from `sources` before it reaches the IPv4 socket; from nobody else.
 * @param sources Addresses as numbers; those beyond {@linkcode MAX_MUTED_SOURCES} are heard.
 * @throws SystemError
 */
export function muteSources(fd: number, sources: readonly number[]): void {
  if (sources.length === 0) {
    // Fails when there was no filter: just as well.
    libc.setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, descriptor, 4);
    return;
  }
  const view = new DataView(descriptor.buffer);
  view.setUint16(0, writeMuting(sources.slice(0, MAX_MUTED_SOURCES)), true);
  view.setBigUint64(8, Deno.UnsafePointer.value(Deno.UnsafePointer.of(program)), true);
  checked(
    "setsockopt",
    libc.setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, descriptor, PROGRAM_BYTES),
  );
}

const meminfo = new Uint32Array(MEMINFO_NUMBERS);
const meminfoLength = new Uint32Array(1);

/**
 * Packets for the socket that the kernel dropped since it was made: by a filter, or for want of
 * room. Counts modulo 2^32.
 * @throws SystemError
 */
export function droppedPackets(fd: number): number {
  meminfoLength[0] = meminfo.byteLength;
  checked("getsockopt", libc.getsockopt(fd, SOL_SOCKET, SO_MEMINFO, meminfo, meminfoLength));
  return meminfo[MEMINFO_DROPS] ?? 0;
}
