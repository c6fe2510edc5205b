/** `outcall network …`: managed Docker networks (S002-IF-005, S002-IF-006). */
import type { CommandUnknownOpts } from "@commander-js/extra-typings";
import type { NetworkStatus } from "../api/services.ts";
import { labels, table } from "./render.ts";
import type { Run } from "./run.ts";

const NAME_HELP = "suffix of the name after outcall-; absent: the default network";

/** Adds the commands to `program`. */
export function addNetworkCommands(program: CommandUnknownOpts, run: Run): void {
  const network = program.command("network").description("networks that agents are attached to");

  network.command("create")
    .description("create a network under enforcement")
    .option("--name <suffix>", NAME_HELP)
    .option("--subnet <cidr>", "a /24 of the subnet block; absent: the next free one")
    .option("--gateway <ip>", "address of DNS filter and proxy; absent: the first of the subnet")
    .action((options) =>
      run(async (client) => {
        const result = await client.createNetwork(options);
        return {
          json: result,
          lines: [
            result.created
              ? `Network "${result.name}" created (${result.subnet}).`
              : `Network "${result.name}" already exists (id: ${result.network_id.slice(0, 12)}).`,
          ],
        };
      })
    );

  network.command("status")
    .description("show a network and the containers on it")
    .option("--name <suffix>", NAME_HELP)
    .action((options) =>
      run(async (client) => {
        const status = await client.network(options.name);
        return { json: status, lines: describe(status) };
      })
    );

  network.command("list").description("list all managed networks").action(() =>
    run(async (client) => {
      const networks = await client.networks();
      const columns = [
        { header: "NAME", width: 18 },
        { header: "SUBNET", width: 16 },
        { header: "CONTAINERS", width: 0 },
      ];
      const rows = networks.map((network) => [
        network.name,
        network.subnet ?? "-",
        network.containers.length,
      ]);
      return { json: { networks }, lines: table(columns, rows) };
    })
  );

  network.command("destroy")
    .description("remove a network without containers")
    .option("--name <suffix>", NAME_HELP)
    .action((options) =>
      run(async (client) => {
        const result = await client.destroyNetwork(options.name);
        return {
          json: result,
          lines: [`Network "${result.name}" ${result.destroyed ? "destroyed" : "did not exist"}.`],
        };
      })
    );
}

function describe(network: NetworkStatus): string[] {
  if (!network.exists) return [`Network "${network.name}" does not exist.`];
  return [
    ...labels(14, [
      ["Network", network.name],
      ["Status", "active"],
      ["Subnet", network.subnet ?? "-"],
      ["Gateway", network.gateway ?? "-"],
      ["Containers", network.containers.length],
    ]),
    ...network.containers.map(({ name, ipv4_address }) => `  ${name.padEnd(16)} ${ipv4_address}`),
  ];
}
