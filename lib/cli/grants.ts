/** `outcall grants …`: what is open to single agents for a time, past the rules. */
import { type CommandUnknownOpts, InvalidArgumentError } from "@commander-js/extra-typings";
import type { ActiveGrant } from "../api/grants.ts";
import { table } from "./render.ts";
import type { Run } from "./run.ts";
import { duration } from "./values.ts";

/** HTTPS, the port that agents mostly want. */
const DEFAULT_PORT = 443;

/** A host name, address or network, with or without a port. */
function destination(text: string): { readonly destination: string; readonly port: number } {
  const [, address, digits] = /^([0-9A-Za-z._/-]+)(?::([0-9]{1,5}))?$/.exec(text) ?? [];
  if (address === undefined) {
    throw new InvalidArgumentError(
      "It must be a host name, IPv4 address or network such as 10.1.2.3:443.",
    );
  }
  const port = digits === undefined ? DEFAULT_PORT : Number(digits);
  if (port < 1 || port > 65_535) throw new InvalidArgumentError("It must be a port of 1 to 65535.");
  return { destination: address, port };
}

function agentOf(text: string): { readonly src_ip: string } | { readonly container: string } {
  return /^[0-9.]+$/.test(text) ? { src_ip: text } : { container: text };
}

function where({ destination, port, protocol }: ActiveGrant): string {
  return `${destination} port ${port}/${protocol}`;
}

function by({ source, hosts, persistent }: ActiveGrant): string {
  const names = hosts.join(", ");
  if (source === "dns") return `look-up of ${names}`;
  return `operator${persistent ? ", persistent" : ""}${names === "" ? "" : ` (${names})`}`;
}

function allowedLine(grant: ActiveGrant): string {
  const agent = grant.container || grant.src_ip;
  const name = grant.hosts.length === 0 ? "" : ` (${grant.hosts.join(", ")})`;
  const time = grant.expires_in_secs === null
    ? "until it is revoked"
    : `for ${grant.expires_in_secs} s`;
  return `Grant ${grant.id}: ${agent} may reach ${where(grant)}${name} ${time}.`;
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
        grant.expires_in_secs === null ? "never" : `${grant.expires_in_secs} s`,
        by(grant),
      ]);
      return {
        json: { rules },
        lines: rows.length === 0 ? ["No grants are in force."] : table(columns, rows),
      };
    })
  );

  grants.command("allow").description("let one agent reach one destination for a time")
    .requiredOption("--agent <name>", "name or address of a running agent")
    .requiredOption(
      "--to <destination>",
      "host name, IPv4 address or network, :port (443)",
      destination,
    )
    .option("--for <time>", "such as 90s, 15m, 2h (15m; a persistent one: no end)", duration)
    .option("--persistent", "comes back after a restart of the daemon", false)
    .option("--udp", "UDP instead of TCP", false)
    .action((options) =>
      run(async (client) => {
        const allowed = await client.grantAllow({
          ...agentOf(options.agent),
          ...options.to,
          protocol: options.udp ? "udp" : "tcp",
          persistent: options.persistent,
          ...(options.for === undefined ? {} : { expires_in_secs: options.for }),
        });
        return { json: allowed, lines: allowed.grants.map(allowedLine) };
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
