/** A program that ours is compared with, as an operator would run it: on the peers' machine. */
import type { Machine } from "../../lab/machine.ts";

/** One peer. */
export interface Peer {
  readonly name: string;
  /** On the peers' address. */
  readonly port: number;
  readonly configPath: string;
  readonly config: string;
  /** Runs it in the foreground. */
  readonly argv: readonly string[];
}

/** Where a peer's configuration file is, on its own machine. */
export function configPath(file: string): string {
  return `/run/lab/${file}`;
}

const POLL_MS = 50;
const START_TIMEOUT_MS = 10_000;

/**
 * Starts `peer`, which ends with its machine, and waits until `probe` succeeds on the `client`.
 * @throws Error with what the peer printed, when it ends or takes too long.
 */
export async function startPeer(
  machine: Machine,
  peer: Peer,
  client: Machine,
  probe: readonly string[],
): Promise<void> {
  await machine.write(peer.configPath, peer.config);
  const process = machine.spawn(peer.argv);
  let ended = false;
  void process.ended.then(() => ended = true);
  const deadline = Date.now() + START_TIMEOUT_MS;
  while ((await client.run(probe)).code !== 0) {
    if (ended || Date.now() > deadline) {
      const printed = [...process.stdout, ...process.stderr].join("\n");
      throw new Error(`${peer.name} ${ended ? "ended" : "does not answer"}: ${printed}`);
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
