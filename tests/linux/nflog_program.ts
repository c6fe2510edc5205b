/**
 * A reader of log group 4711, to run inside a lab machine. Prints `joined`, or why it cannot; after
 * the line `read` on standard input it reads everything, has one more packet logged, and prints how
 * many it read and how many it was told were lost.
 */
import { createInterface } from "node:readline";
import process from "node:process";
import { messageOf } from "../../lib/errors.ts";
import { PacketLog } from "../../lib/linux/nflog.ts";

async function drain(packets: PacketLog, counted: { read: number; lost: number }): Promise<void> {
  for (let silent = 0; silent < 4;) {
    const read = packets.read();
    if (read === null) {
      silent++;
      await packets.wait(150); // longer than the kernel keeps packets back
      continue;
    }
    silent = 0;
    counted.read += read.packets.length;
    counted.lost += read.lost;
  }
}

try {
  using packets = new PacketLog(4711);
  console.log("joined");
  for await (const line of createInterface({ input: process.stdin })) {
    if (line !== "read") break;
    const counted = { read: 0, lost: 0 };
    await drain(packets, counted);
    const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
    const to = { transport: "udp", hostname: "127.0.0.1", port: 9 } as const;
    await socket.send(new Uint8Array(1), to).catch(() => {}); // dropped, and logged
    socket.close();
    await drain(packets, counted);
    console.log(JSON.stringify(counted));
  }
} catch (error) {
  console.log(messageOf(error));
}
Deno.exit(); // standard input is still open
