/**
 * Attempts with their proof. Blocked means: seconds after the same packet from an unfiltered machine
 * arrived, the agent's did not. Allowed means that it arrived, whatever the client prints.
 */
import type { Lab } from "./lab.ts";
import { UNFILTERED_ADDRESS } from "./lab.ts";
import type { Finished, RunOptions } from "./process.ts";
import { type Arrival, nothing, type Receiver, type Seen } from "./witness.ts";

/** Whatever can run a client: a machine, or a container. */
export interface Client {
  run(argv: readonly string[], options?: RunOptions): Promise<Finished>;
}

/** One attempt of an agent. */
export interface Attempt {
  readonly client: Client;
  readonly argv: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** What would be seen if the attempt got through. */
  readonly arrives: Arrival;
  /** Who would see it; the internet when absent. */
  readonly receiver?: Receiver;
  /** What the unfiltered machine runs to show that it would; the same command when absent. */
  readonly control?: readonly string[];
}

/** What the agent's client printed, and what the internet saw of it. */
export interface Outcome {
  readonly client: Finished;
  readonly seen: Seen;
}

/** The positive control did not arrive: the case says nothing about the product. */
export class InconclusiveError extends Error {
  override readonly name = "InconclusiveError";
}

/** Shows that `argv` gets through without the product in the way. */
export async function positiveControl(
  lab: Lab,
  argv: readonly string[],
  arrives: Arrival,
  receiver: Receiver = lab.witness,
): Promise<void> {
  const mark = await receiver.mark();
  const finished = await lab.control(argv);
  const seen = await receiver.since(mark, { ...arrives, from: UNFILTERED_ADDRESS });
  if (nothing(seen)) {
    throw new InconclusiveError(
      `nothing arrived from the unfiltered machine with ${argv.join(" ")}: ${finished.stderr}`,
    );
  }
}

/** Runs the agent's client and watches for what it should cause. */
export async function attempt(lab: Lab, what: Attempt): Promise<Outcome> {
  const receiver = what.receiver ?? lab.witness;
  const mark = await receiver.mark();
  const client = await what.client.run(what.argv, what.env === undefined ? {} : { env: what.env });
  return { client, seen: await receiver.since(mark, what.arrives) };
}

/** @throws when anything arrived, or when the positive control did not. */
export async function expectBlocked(lab: Lab, what: Attempt): Promise<Outcome> {
  await positiveControl(lab, what.control ?? what.argv, what.arrives, what.receiver);
  const outcome = await attempt(lab, what);
  if (!nothing(outcome.seen)) {
    throw new Error(`${what.argv.join(" ")} got through: ${Deno.inspect(outcome)}`);
  }
  return outcome;
}
