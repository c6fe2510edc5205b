import assert from "node:assert/strict";
import { parseClientHello } from "../../lib/proxy/client_hello.ts";
import { compilePolicy } from "../../lib/rules/compile.ts";
import { decide } from "../../lib/rules/decide.ts";
import { ALLOWED_NAMES, BLOCKED_NAMES, NAME_COUNT, ruleFiles } from "./names.ts";
import { clientHello, readWanted, wantedMessage } from "./wanted.ts";

Deno.test("ruleFiles() allows exactly the names that the benchmarks call allowed", () => {
  const files = Object.entries(ruleFiles(2 * NAME_COUNT)).map(([path, text]) => ({ path, text }));
  const compiled = compilePolicy(files, { generation: 1 });
  assert.ok(compiled.ok);
  assert.equal(compiled.policy.rules.length, 2 * NAME_COUNT);
  const allows = (host: string): boolean =>
    decide(compiled.policy, "http", { http: { host } }).allowed;
  assert.ok(ALLOWED_NAMES.every(allows));
  assert.ok(!BLOCKED_NAMES.some(allows));
});

Deno.test("clientHello() is a ClientHello with the server's name, and nothing else", async () => {
  const hello = await clientHello("site-500.example.com");
  const parsed = parseClientHello(hello);
  assert.ok(parsed.kind === "hello");
  assert.equal(parsed.serverName?.name, "site-500.example.com");
});

Deno.test("readWanted() reads what wantedMessage() wrote, however it is cut", async () => {
  const message = await wantedMessage("site-500.example.com", Number.MAX_SAFE_INTEGER);
  for (const pieceBytes of [1, 4, message.length - 1, message.length]) {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const [client, server] = await Promise.all([
      Deno.connect({ hostname: "127.0.0.1", port: listener.addr.port }),
      listener.accept(),
    ]);
    const wanted = readWanted(server);
    for (let sent = 0; sent < message.length; sent += pieceBytes) {
      await client.write(message.subarray(sent, sent + pieceBytes));
    }
    assert.equal(await wanted, Number.MAX_SAFE_INTEGER);
    for (const open of [client, server, listener]) open.close();
  }
});
