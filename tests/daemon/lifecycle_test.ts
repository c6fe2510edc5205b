import assert from "node:assert/strict";
import { Process } from "../lab/process.ts";
import { denoCommand } from "../lab/product.ts";

Deno.test("a second signal has everything stop at once: whatever was waited for is given up (D2)", async () => {
  const program = Process.start(denoCommand(new URL("./slow_stop.ts", import.meta.url)), {
    env: Deno.env.toObject(),
  });
  await program.line("stdout", (line) => line === "started");
  program.kill("SIGTERM");
  await program.line("stdout", (line) => line === "stopping");
  program.kill("SIGINT");
  assert.equal(await program.ended, 0);
});
