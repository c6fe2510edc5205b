/** Parsers of other makes, to read what came out of the proxy. */
import { fileURLToPath } from "node:url";
import { hex } from "../random.ts";

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
  return Promise.all(
    READERS.map(async ([program, script]): Promise<Reading[]> =>
      JSON.parse(await output([program, script], JSON.stringify(streams)))
    ),
  );
}

/** ClientHellos of OpenSSL's own client, which name a.example. */
export async function hellosOfOpenssl(): Promise<Uint8Array<ArrayBuffer>[]> {
  const hellos: string[] = JSON.parse(await output(["python3", "openssl.py", "write"], ""));
  return hellos.map((text) => Uint8Array.fromHex(text));
}

/** The server name that OpenSSL reads in each hello: "" for none, null where it refuses before. */
export async function namesByOpenssl(hellos: readonly Uint8Array[]): Promise<(string | null)[]> {
  const input = JSON.stringify(hellos.map(hex));
  return JSON.parse(await output(["python3", "openssl.py", "read"], input));
}

/** What a program prints that is given a script of `readers/`, arguments, and input. */
async function output(
  [program = "", script = "", ...args]: readonly string[],
  input: string,
): Promise<string> {
  const child = new Deno.Command(program, {
    args: [fileURLToPath(new URL(`./readers/${script}`, import.meta.url)), ...args],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const finished = child.output();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(input));
  await writer.close();
  return new TextDecoder().decode((await finished).stdout);
}
