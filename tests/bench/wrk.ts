/** Runs wrk against a proxy and reads its report. */
import type { Machine } from "../lab/machine.ts";

/** One run of wrk. */
export interface WebRun {
  /** Client's machine. */
  readonly from: Machine;
  readonly proxy: { readonly hostname: string; readonly port: number };
  /** The server asked for. */
  readonly server: string;
  /** Connections at the same time. */
  readonly clients: number;
  readonly seconds: number;
}

/** wrk knows no proxies, but it can be told to ask for an absolute URL. */
function script(server: string): string {
  return `wrk.path = "http://${server}/"\nwrk.headers["Host"] = "${server}"\n`;
}

/**
 * Reads what wrk prints: requests a second.
 * @throws Error when a request was refused, or a connection could not be made.
 */
export function readRequestsPerSec(text: string): number {
  const refused = /Non-2xx or 3xx responses: \d+/.exec(text);
  if (refused !== null) throw new Error(refused[0]);
  // Not the read errors: a proxy that closes after each answer, as tinyproxy does, has one for each.
  const errors = /connect [1-9].*|timeout [1-9].*/.exec(text);
  if (errors !== null) throw new Error(`socket errors: ${errors[0]}`);
  return Number(/Requests\/sec:\s+([0-9.]+)/.exec(text)?.[1] ?? NaN);
}

/** Plain HTTP requests a second through a proxy. */
export async function requestsPerSec(run: WebRun): Promise<number> {
  const path = "/run/lab/forward.lua";
  await run.from.write(path, script(run.server));
  return readRequestsPerSec(
    await run.from.must([
      ...["wrk", "-t1", `-c${run.clients}`, `-d${run.seconds}s`, "-s", path],
      `http://${run.proxy.hostname}:${run.proxy.port}/`,
    ]),
  );
}
