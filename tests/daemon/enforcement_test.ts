/** In which order the services end; the kernel's part is shown in tests/e2e/stop_test.ts. */
import assert from "node:assert/strict";
import type { GatewayService } from "../../lib/bridge/segment.ts";
import { type CoveredBridges, Enforcement } from "../../lib/enforcement.ts";

function recording(drain: () => Promise<void>): { enforcement: Enforcement; steps: string[] } {
  const steps: string[] = [];
  const note = (step: string): Promise<void> => {
    steps.push(step);
    return Promise.resolve();
  };
  const bridges: CoveredBridges = {
    attach: () => note("attach"),
    detach: () => note("detach"),
    down: () => note("down"),
    isDown: false,
    open: ({ dns, proxy }) => note(dns.length + proxy.length === 0 ? "close" : "open"),
    segments: () => [],
    up: () => note("up"),
  };
  const dns: GatewayService = {
    serve: () => note("serve"),
    drain,
    stop: () => note("give up the ports"),
    status: () => ({ listen_addresses: [] }),
  };
  return { enforcement: new Enforcement(bridges, { dns, proxy: null }), steps };
}

Deno.test("stopping closes the firewall before the ports are given up (D2)", async () => {
  const { enforcement, steps } = recording(() => Promise.resolve());
  await enforcement.stopServices();
  assert.deepEqual(steps, ["close", "give up the ports"]);
});

Deno.test("a service that fails while it drains leaves the firewall closed (D2)", async () => {
  const { enforcement, steps } = recording(() => Promise.reject(new Error("broken")));
  await assert.rejects(enforcement.stopServices(), /broken/);
  assert.deepEqual(steps, ["close"]);
});
