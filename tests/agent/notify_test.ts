import { deepEqual } from "node:assert/strict";
import { webhook } from "../../lib/agent/notify.ts";
import type { StoredRequest } from "../../lib/store/requests.ts";

const REQUEST: StoredRequest = {
  id: "rr-0123456789ab",
  agent_key: "a",
  agent: "worker",
  container_id: null,
  address: "10.200.0.2",
  network: "outcall-agent-net",
  rule_file: "",
  approved_file: null,
  reason: "why",
  for_secs: 60,
  hits: 1,
  status: "pending",
  created_ms: 0,
  asked_ms: 0,
  decided_ms: null,
  decided_by: null,
  answer: null,
  expires_ms: null,
};

Deno.test("a webhook is told of a new request as JSON", async () => {
  const told = Promise.withResolvers<unknown>();
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, async (got) => {
    told.resolve(await got.json());
    return new Response();
  });
  try {
    webhook(new URL(`http://127.0.0.1:${server.addr.port}/hook`))(REQUEST, {
      rules: [],
      warnings: ["wide"],
    });
    deepEqual(await told.promise, {
      event: "rule_request",
      id: "rr-0123456789ab",
      agent: "worker",
      container_id: null,
      address: "10.200.0.2",
      network: "outcall-agent-net",
      reason: "why",
      for_secs: 60,
      created_at: "1970-01-01T00:00:00.000Z",
      rules: [],
      warnings: ["wide"],
    });
  } finally {
    await server.shutdown();
  }
});
