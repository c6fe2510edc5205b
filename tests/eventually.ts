/** Longest wait: in vain it is a failure, and never a measurement. */
const LIMIT_MS = 30_000;
const POLL_MS = 10;

/** Waits until `holds` says yes. `what` names it when it never does. */
export async function eventually(
  holds: () => boolean | Promise<boolean>,
  what: string = String(holds),
): Promise<void> {
  const deadline = Date.now() + LIMIT_MS;
  while (!await holds()) {
    if (Date.now() > deadline) throw new Error(`never came true: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
