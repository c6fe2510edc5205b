/** Serves a host API as the daemon does, for tests that need it in a process of its own. */
import { hostApp } from "../../lib/api/host.ts";
import { admitOperator, operatorSocketAccess } from "../../lib/api/operators.ts";
import { serveUnix } from "../../lib/api/unix_server.ts";
import { healthy, services } from "./services.ts";

const [path] = Deno.args;
if (path === undefined) throw new Error("usage: operator_host.ts <socket>");
await serveUnix({
  path,
  ...operatorSocketAccess(),
  fetch: hostApp(services(healthy(), { calls: [] })).fetch,
  admit: admitOperator,
  target: "host_api",
});
console.log("ready");
