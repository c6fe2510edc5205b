/** `outcall grants …`: what is open to single agents for a time, past the rules. */
import { type CommandUnknownOpts, InvalidArgumentError } from "@commander-js/extra-typings";
import type { ActiveGrant } from "../api/grants.ts";
import { table } from "./render.ts";
import type { Run } from "./run.ts";
import { duration } from "./values.ts";

/** HTTPS, the port that agents mostly want. */
const DEFAULT_PORT = 443;

/** An address or network, with or without a port. */
function destination(text: string): { readonly destination: string; readonly port: number } {
  const [, address, port] = /^([0-9./]+)(?::([0-9]{1,5}))?$/.exec(text) ?? [];
  if (address === undefined) {
    throw new InvalidArgumentError("It must be an IPv4 address or network such as 10.1.2.3:443.");
  }
  return { destination: address, port: port === undefined ? DEFAULT_PORT : Number(port) };
}

function agentOf(text: string): { readonly src_ip: string } | { readonly container: string } {
  return /^[0-9.]+$/.test(text) ? { src_ip: text } : { container: text };
}

function where({ destination, port, protocol }: ActiveGrant): string {
  return `${destination} port ${port}/${protocol}`;
}

/** Adds the commands to `program`. */
export function addGrantCommands(program: CommandUnknownOpts, run: Run): void {
  const grants = program.command("grants")
    .description("destinations opened to single agents for a time, past the rules");

  grants.command("list").description("show the grants in force").action(() =>
    run(async (client) => {
      const rules = await client.grantList();
      const columns = [
        { header: "ID", width: 8 },
        { header: "AGENT", width: 16 },
        { header: "DESTINATION", width: 28 },
        { header: "EXPIRES IN", width: 10 },
        { header: "BY", width: 0 },
      ];
      const rows = rules.map((grant) => [
        grant.id,
        grant.container || grant.src_ip,
        where(grant),
        `${grant.expires_in_secs} s`,
        grant.source === "dns" ? `look-up of ${grant.hosts.join(", ")}` : "operator",
      ]);
      return {
        json: { rules },
        lines: rows.length === 0 ? ["No grants are in force."] : table(columns, rows),
      };
    })
  );

  grants.command("allow").description("let one agent reach one destination for a time")
    .requiredOption("--agent <name>", "name or address of a running agent")
    .requiredOption("--to <destination>", "IPv4 address or network, :port (443)", destination)
    .option("--for <time>", "such as 90s, 15m, 2h", duration, 900)
    .option("--udp", "UDP instead of TCP", false)
    .action((options) =>
      run(async (client) => {
        const grant = await client.grantAllow({
          ...agentOf(options.agent),
          ...options.to,
          protocol: options.udp ? "udp" : "tcp",
          expires_in_secs: options.for,
        });
        const agent = grant.container || grant.src_ip;
        return {
          json: grant,
          lines: [
            `Grant ${grant.id}: ${agent} may reach ${where(grant)} for ${grant.expires_in_secs} s.`,
          ],
        };
      })
    );

  grants.command("revoke <id>").description("end a grant, and the connections it opened")
    .action((id) =>
      run(async (client) => {
        await client.grantRevoke(id);
        return { json: {}, lines: [`Grant ${id} is revoked.`] };
      })
    );

  grants.command("flush").description("end all grants, and the connections they opened")
    .action(() =>
      run(async (client) => {
        const result = await client.grantFlush();
        return { json: result, lines: [`Grants flushed (${result.removed} revoked).`] };
      })
    );
}
