/** The client's end of the wire: takes {@linkcode Dialogue}s, prints what each one {@linkcode Heard}. */
import process from "node:process";
import readline from "node:readline";
import { RawClient } from "../../proxy/raw.ts";
import type { Dialogue, Heard, Step } from "./protocol.ts";

async function perform(client: RawClient, step: Step): Promise<string | null> {
  switch (step.do) {
    case "send":
      await client.send(step.text);
      return null;
    case "trickle":
      client.conn.setNoDelay(true);
      for (const byte of step.text) await client.send(byte);
      return null;
    case "until":
      return await client.until(new RegExp(step.pattern));
    case "finish":
      await client.conn.closeWrite();
      return null;
    case "rest":
      return await client.rest();
  }
}

async function hold({ id, to, port, steps }: Dialogue): Promise<Heard> {
  const texts: string[] = [];
  try {
    using client = await RawClient.connect(port, to);
    for (const step of steps) {
      const text = await perform(client, step);
      if (text !== null) texts.push(text);
    }
    return { id, texts, error: null };
  } catch (thrown) {
    return { id, texts, error: String(thrown) };
  }
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const dialogue: Dialogue = JSON.parse(line);
  void hold(dialogue).then((heard) => console.log(JSON.stringify(heard)));
}
