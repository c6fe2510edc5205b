/** Runs an allowed program for as long as the daemon is there (S005-FR-012, S005-FR-019). */
import { AgentClient, Refused, Unreachable } from "./client.ts";

/** Between two signs of life; with the time that one may take, a lost daemon shows within 5 s. */
const HEARTBEAT_MS = 2_000;
const HEARTBEAT_TIMEOUT_MS = 2_000;

/** How a child ended. */
export interface Ended {
  readonly code: number;
}

/**
 * Runs exactly `argv`, no shell in between, with our own standard streams.
 * @throws Unreachable when the daemon is lost; the child is dead by then.
 */
export async function runChild(socketPath: string, argv: readonly string[]): Promise<Ended> {
  const [program = "", ...args] = argv;
  let child: Deno.ChildProcess | undefined;
  const forward = (signal: Deno.Signal) => (): void => {
    try {
      child?.kill(signal);
    } catch {
      // It has ended.
    }
  };
  const handlers = (["SIGINT", "SIGTERM", "SIGHUP"] as const).map((signal) =>
    [signal, forward(signal)] as const
  );
  // Before there is a child: a signal in between would end us and leave it behind.
  for (const [signal, handler] of handlers) Deno.addSignalListener(signal, handler);
  const over = new AbortController();
  try {
    child = new Deno.Command(program, {
      args,
      stdin: "inherit",
      stdout: "inherit",
      stderr: "inherit",
    }).spawn();
    const lost = heartbeat(socketPath, over.signal);
    const first = await Promise.race([child.status, lost]);
    if (first instanceof Unreachable) {
      forward("SIGKILL")();
      await child.status;
      throw first;
    }
    return { code: first.code };
  } finally {
    over.abort();
    for (const [signal, handler] of handlers) Deno.removeSignalListener(signal, handler);
  }
}

/** Settles with the reason when the daemon is lost; never while it is there. */
function heartbeat(socketPath: string, over: AbortSignal): Promise<Unreachable> {
  return new Promise((resolve) => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const beat = async (): Promise<void> => {
      try {
        await alive(socketPath);
        if (!over.aborted) timer = setTimeout(beat, HEARTBEAT_MS);
      } catch (thrown) {
        resolve(thrown instanceof Unreachable ? thrown : new Unreachable(String(thrown)));
      }
    };
    timer = setTimeout(beat, HEARTBEAT_MS);
    over.addEventListener("abort", () => clearTimeout(timer));
  });
}

/** A connection alone proves little: the kernel accepts for a daemon that hangs. */
async function alive(socketPath: string): Promise<void> {
  const client = await AgentClient.connect(socketPath, HEARTBEAT_TIMEOUT_MS);
  try {
    await client.ask("GET", "/v1/whoami");
  } catch (thrown) {
    if (!(thrown instanceof Refused)) throw thrown; // whoever refuses is there
  } finally {
    client.close();
  }
}
