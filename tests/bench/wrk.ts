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

/** What a run of wrk came to. */
export interface WebFigures {
  readonly requestsPerSec: number;
  /** Within this time 99 of 100 answers came. */
  readonly p99Ms: number;
}

const UNIT_MS: Readonly<Record<string, number>> = { us: 0.001, ms: 1, s: 1_000 };

/**
 * Reads what wrk prints.
 * @throws Error when a request was refused, or a connection could not be made.
 */
export function readWrk(text: string): WebFigures {
  const refused = /Non-2xx or 3xx responses: \d+/.exec(text);
  if (refused !== null) throw new Error(refused[0]);
  // Not the read errors: a proxy that closes after each answer, as tinyproxy does, has one for each.
  const errors = /connect [1-9].*|timeout [1-9].*/.exec(text);
  if (errors !== null) throw new Error(`socket errors: ${errors[0]}`);
  const [, latency, unit = ""] = /\s99%\s+([0-9.]+)([a-z]+)/.exec(text) ?? [];
  return {
    requestsPerSec: Number(/Requests\/sec:\s+([0-9.]+)/.exec(text)?.[1] ?? NaN),
    p99Ms: Number(latency ?? NaN) * (UNIT_MS[unit] ?? NaN),
  };
}

/** Plain HTTP through a proxy, as fast as it goes. */
export async function runWrk(run: WebRun): Promise<WebFigures> {
  const path = "/run/lab/forward.lua";
  await run.from.write(path, script(run.server));
  return readWrk(
    await run.from.must([
      ...["wrk", "-t1", "--latency", `-c${run.clients}`, `-d${run.seconds}s`, "-s", path],
      `http://${run.proxy.hostname}:${run.proxy.port}/`,
    ]),
  );
}
