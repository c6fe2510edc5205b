/**
 * Start-up and shutdown as an ordered list of steps.
 *
 * A step that fails ends start-up, and so does a signal. Either way the steps so far are stopped in
 * reverse order, and nothing that protects is undone: stopping the bridge step puts the firewall's
 * strict base policy in place and leaves everything else (decision D2).
 */
import { messageOf, OutcallError } from "./errors.ts";
import { logger, type Target } from "./log.ts";

/** One step of start-up. */
export interface Step {
  /** What it starts, as the operator guide calls it; also the log target. */
  readonly target: Target;
  /** Does the work, bounded in time; returns what to log. */
  start(): Promise<string>;
  /**
   * Undoes it. Called also for a step that failed half-way.
   * @param atOnce Is aborted when nobody wants to wait any more for what is under way to end.
   */
  stop?(atOnce: AbortSignal): Promise<void>;
}

async function stopAll(started: readonly Step[], atOnce: AbortSignal): Promise<void> {
  for (const step of started.toReversed()) {
    try {
      await step.stop?.(atOnce);
    } catch (thrown) {
      logger(step.target).error("while stopping: {error}", { error: messageOf(thrown) });
    }
  }
}

function logFailure(target: Target, thrown: unknown): void {
  const log = logger(target);
  log.error("start-up failed: {error}", { error: messageOf(thrown) });
  if (!(thrown instanceof OutcallError)) return;
  for (const { file, line, column, message } of thrown.details ?? []) {
    log.error("{place}: {message}", { place: `${file}:${line}:${column}`, message });
  }
  if (thrown.hint !== undefined) log.error("hint: {hint}", { hint: thrown.hint });
}

/**
 * Starts the steps in order, waits for SIGINT or SIGTERM, and stops them; a second signal has them
 * stop at once.
 * @param makeSteps Called once; each step is asked for when those before it have started, and asking
 * may throw what is wrong with the configuration.
 * @returns the exit code: 0 after a signal, 1 when start-up failed.
 */
export async function runUntilSignal(makeSteps: () => Iterable<Step>): Promise<number> {
  const signal = Promise.withResolvers<Deno.Signal>();
  const hurry = new AbortController();
  let isSignalled = false;
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    Deno.addSignalListener(name, () => {
      if (isSignalled) hurry.abort();
      isSignalled = true;
      signal.resolve(name);
    });
  }
  const started: Step[] = [];
  try {
    for (const step of makeSteps()) {
      if (isSignalled) break;
      started.push(step);
      logger(step.target).info("{done}", { done: await step.start() });
    }
  } catch (thrown) {
    logFailure(started.at(-1)?.target ?? "host_api", thrown);
    await stopAll(started, hurry.signal);
    return 1;
  }
  const name = await signal.promise;
  logger("host_api").info("{name}: stopping; agents are cut off until the daemon is back", {
    name,
  });
  await stopAll(started, hurry.signal);
  return 0;
}
