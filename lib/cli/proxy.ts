/** `outcall proxy …`: the HTTP proxy. */
import type { CommandUnknownOpts } from "@commander-js/extra-typings";
import type { ProxyStatus } from "../api/services.ts";
import { printable } from "../printable.ts";
import { labels } from "./render.ts";
import type { Run } from "./run.ts";

function tunnelText(tunnels: ProxyStatus["tunnels"]): string {
  return tunnels.map(({ agent, address, count }) =>
    `${printable(agent) || "unnamed"} (${address}) ${count}`
  )
    .join(", ");
}

/** Adds the commands to `program`. */
export function addProxyCommands(program: CommandUnknownOpts, run: Run): void {
  const proxy = program.command("proxy").description("the HTTP proxy");

  proxy.command("status").description("show listeners, connections and counters").action(() =>
    run(async (client) => {
      const status = await client.proxyStatus();
      const listen = status.listen_addresses.map((ip) => `${ip}:${status.listen_port}`);
      return {
        json: status,
        lines: status.running
          ? labels(16, [
            ["HTTP Proxy", "active"],
            ["Listen", listen.join(", ")],
            ["Proxy URL", listen.map((address) => `http://${address}`).join(", ")],
            ["Active conns", status.active_connections],
            ...(status.tunnels.length === 0
              ? []
              : [["Tunnels", tunnelText(status.tunnels)] as const]),
            ["Requests", `${status.requests_total} total (${status.requests_blocked} blocked)`],
          ])
          : labels(16, [["HTTP Proxy", "inactive"]]),
      };
    })
  );
}
