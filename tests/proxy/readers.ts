/** HTTP/1 parsers of other makes, to read what came out of the proxy. */
import { fileURLToPath } from "node:url";

/** A stream of bytes, as one side of a connection received it. */
export interface Received {
  readonly kind: "request" | "response";
  /** Of the request that a response answers. */
  readonly method: string;
  /** A byte string. */
  readonly bytes: string;
}

/** One message; texts are byte strings. */
export interface Message {
  /** Method and target, or the status. */
  readonly start: string;
  /** Names in lower case, in order. */
  readonly fields: readonly (readonly [name: string, value: string])[];
  /** Decoded. */
  readonly body: string;
}

/** What a reader made of a stream. */
export interface Reading {
  /** Whole ones. */
  readonly messages: readonly Message[];
  /** What was behind them: null for nothing, "cut off" for the beginning of another one. */
  readonly problem: string | null;
}

/** llhttp is Node's; http.server and http.client are Python's. */
const READERS: readonly (readonly [program: string, script: string])[] = [
  ["node", "llhttp"],
  ["python3", "python.py"],
];

/** The programs that reading takes. */
export const READER_TOOLS: readonly string[] = READERS.map(([program]) => program);

/** What each reader makes of each stream. */
export function readByOthers(streams: readonly Received[]): Promise<Reading[][]> {
  return Promise.all(READERS.map(async ([program, script]): Promise<Reading[]> => {
    const child = new Deno.Command(program, {
      args: [fileURLToPath(new URL(`./readers/${script}`, import.meta.url))],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    const output = child.output();
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(JSON.stringify(streams)));
    await writer.close();
    return JSON.parse(new TextDecoder().decode((await output).stdout));
  }));
}
