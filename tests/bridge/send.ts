/**
 * Sends packets that no everyday program sends. Arguments:
 *
 *     raw PROTOCOL ADDRESS      one packet of an IP protocol number
 *     flood ADDRESS PORT        UDP until standard input ends; prints a line once it has begun, and
 *                               how many packets it handed to the kernel at the end
 */
import { bindLibc, checked } from "../../lib/linux/libc.ts";
import { Ip } from "../../lib/net/ip.ts";

const AF_INET = 2;
const SOCK_DGRAM = 2;
const SOCK_RAW = 3;
const SOCKADDR_IN_BYTES = 16;
const PAYLOAD = new Uint8Array(32);

const libc = bindLibc({
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  sendto: {
    parameters: ["i32", "buffer", "usize", "i32", "buffer", "u32"],
    result: "isize",
  },
});

/** struct sockaddr_in: family in host order, port and address in network order. */
function socketAddress(address: string, port: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(SOCKADDR_IN_BYTES);
  bytes.set([AF_INET, 0, port >> 8, port & 0xff, ...Ip.parse(address)?.bytes ?? []]);
  return bytes;
}

function send(fd: number, to: Uint8Array<ArrayBuffer>): boolean {
  return libc.sendto(fd, PAYLOAD, BigInt(PAYLOAD.length), 0, to, SOCKADDR_IN_BYTES) >= 0n;
}

const [what, first = "", second = ""] = Deno.args;
if (what === "raw") {
  const fd = checked("socket", libc.socket(AF_INET, SOCK_RAW, Number(first)));
  if (!send(fd, socketAddress(second, 0))) throw new Error("not sent");
} else {
  const fd = checked("socket", libc.socket(AF_INET, SOCK_DGRAM, 0));
  const to = socketAddress(first, Number(second));
  let ended = false;
  void Deno.stdin.read(new Uint8Array(1)).then(() => ended = true);
  console.log("flooding");
  let sent = 0;
  while (!ended) {
    for (let i = 0; i < 1000; i++) if (send(fd, to)) sent++;
    await new Promise((resolve) => setTimeout(resolve, 0)); // lets the end of input be seen
  }
  console.log(sent);
}
