/** Short sleeps. */
import assert from "node:assert/strict";
import { Nap } from "../../lib/linux/nap.ts";

Deno.test("Nap.take() sleeps at least as long as it is to, each time", () => {
  const nap = new Nap(2000);
  for (let i = 0; i < 3; i++) {
    const startMs = performance.now();
    nap.take();
    assert(performance.now() - startMs >= 1.9);
  }
});
