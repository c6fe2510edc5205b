/** `outcall bridge …`: the default bridge and the firewall (S001-IF-004, S001-IF-005). */
import type { CommandUnknownOpts } from "@commander-js/extra-typings";
import { labels } from "./render.ts";
import type { Run } from "./run.ts";

/** Adds the commands to `program`. */
export function addBridgeCommands(program: CommandUnknownOpts, run: Run): void {
  const bridge = program.command("bridge").description("the bridge and its firewall");

  bridge.command("status").description("show whether bridge and nftables are active").action(() =>
    run(async (client) => {
      const status = await client.bridgeStatus();
      return {
        json: status,
        lines: labels(11, [
          ["Bridge", status.name],
          ["Status", status.up ? "up" : "down"],
          ...(status.index === null ? [] : [["Index", status.index] as const]),
          ["nftables", status.nftables],
          ...(status.last_repair === undefined ? [] : [
            [
              "Repaired",
              `${status.last_repair.at}: ${status.last_repair.wrong.join(", ")}`,
            ] as const,
          ]),
        ]),
      };
    })
  );

  bridge.command("up").description("create the bridge and apply the firewall").action(() =>
    run(async (client) => {
      await client.bridgeUp();
      return { json: {}, lines: ["Bridge is up."] };
    })
  );

  bridge.command("down").description("tear bridge and firewall down").action(() =>
    run(async (client) => {
      await client.bridgeDown();
      return { json: {}, lines: ["Bridge is down."] };
    })
  );
}
