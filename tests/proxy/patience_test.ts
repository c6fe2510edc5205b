import assert from "node:assert/strict";
import { giveUpAfter } from "../../lib/patience.ts";

const LIMIT_MS = 50;

Deno.test("an answer that came while this isolate was held up counts, though its time is over", async () => {
  const { port1, port2 } = new MessageChannel();
  let hasGivenUp = false;
  const answered = Promise.withResolvers<void>();
  const stopWaiting = giveUpAfter(LIMIT_MS, () => hasGivenUp = true);
  port2.onmessage = (): void => {
    stopWaiting();
    answered.resolve();
  };
  port1.postMessage("answer");
  for (const untilMs = performance.now() + 5 * LIMIT_MS; performance.now() < untilMs;);
  await answered.promise;
  assert.equal(hasGivenUp, false);
  port1.close();
  port2.close();
});

Deno.test("without an answer it is given up", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  giveUpAfter(LIMIT_MS, resolve);
  await promise;
});
