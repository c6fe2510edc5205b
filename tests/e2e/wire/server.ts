/**
 * The server's end of the wire, at every address and the port that is its argument. Takes
 * {@linkcode Instruction}s; each is answered by a line, what has arrived by one byte string for each
 * connection.
 */
import process from "node:process";
import readline from "node:readline";
import { Origin, type RawClient } from "../../proxy/raw.ts";
import type { Behaviour, Instruction } from "./protocol.ts";

/** After this it tells what there is. */
const LIMIT_MS = 10_000;

let behaviour: Behaviour = { kind: "echo" };

async function serve(client: RawClient): Promise<void> {
  const now = behaviour;
  while (now.kind === "echo") await client.send(await client.until(/[^]+/));
  while (now.kind === "answer") {
    await client.until(new RegExp(now.after));
    await client.send(now.text);
  }
  if (now.kind === "last") {
    await client.until(/\r\n\r\n/);
    await client.send(now.text);
  }
}

const origin = new Origin(serve, "0.0.0.0", Number(Deno.args[0]));
let first = 0;

/** Connections may still be on their way here, or the news of their end. */
async function arrived(connections: number): Promise<readonly string[]> {
  const deadline = Date.now() + LIMIT_MS;
  const isComplete = (): boolean =>
    origin.received.length >= first + connections && origin.openConnections === 0;
  while (!isComplete() && Date.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return origin.received.slice(first);
}

console.log("ready");
for await (const line of readline.createInterface({ input: process.stdin })) {
  const instruction: Instruction = JSON.parse(line);
  if (instruction.kind === "show") {
    console.log(JSON.stringify(await arrived(instruction.connections)));
  } else {
    behaviour = instruction;
    first = origin.received.length;
    console.log("done");
  }
}
