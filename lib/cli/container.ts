/** `outcall container …`: hardened agent containers (S008-IF-007, S008-IF-008). */
import type { CommandUnknownOpts } from "@commander-js/extra-typings";
import {
  OBSERVE_DEFAULT_SECS,
  STOP_TIMEOUT_DEFAULT_SECS,
  STOP_TIMEOUT_MAX_SECS,
} from "../api/schemas.ts";
import type { ContainerDetail } from "../api/services.ts";
import { wholeNumber } from "../options.ts";
import { printable } from "../printable.ts";
import { errColumns, writeErr } from "./output.ts";
import { PullDisplay, type PullScreen } from "./pull.ts";
import { labels, table } from "./render.ts";
import type { Run } from "./run.ts";
import { collect, duration, memorySize, OBSERVE_HELP } from "./values.ts";

const NO_STRINGS: readonly string[] = [];

/** Adds the commands to `program`. */
export function addContainerCommands(program: CommandUnknownOpts, run: Run): void {
  const container = program.command("container").description("agent containers");
  addCreate(container, run);
  addShow(container, run);
  addEnd(container, run);
  addPull(container, run);
}

function addCreate(container: CommandUnknownOpts, run: Run): void {
  container.command("create")
    .description("create and start an agent container with DNS, proxy and shim wired up")
    .argument("[command...]", "command to run instead of the image's, after --")
    .requiredOption("--image <ref>", "image, which must be present (see: container pull)")
    .option("--network <name>", "managed network, full name or suffix; absent: the default one")
    .option("--name <name>", "name of the container; absent: a generated one")
    .option("--memory <size>", "memory limit, such as 256m or 1g", memorySize)
    .option("--cpu-shares <n>", "relative CPU weight", wholeNumber(2, 262_144))
    .option("-e, --env <NAME=value>", "environment variable; repeatable", collect, NO_STRINGS)
    .option("-v, --volume <src:dst[:opts]>", "mount; repeatable", collect, NO_STRINGS)
    .option("-w, --workdir <path>", "working directory")
    .option("-u, --user <uid:gid>", "numeric user and group, neither zero")
    .option("-t, --tty", "allocate a terminal", false)
    .option("-i, --interactive", "keep stdin open", false)
    .option("--observe [time]", OBSERVE_HELP, duration)
    .action((command, options) =>
      run(async (client) => {
        const result = await client.createContainer({
          image: options.image,
          network: options.network,
          name: options.name,
          user: options.user,
          memory_limit: options.memory,
          cpu_shares: options.cpuShares,
          env: options.env,
          cmd: command.length === 0 ? undefined : command,
          working_dir: options.workdir,
          volumes: options.volume,
          // The quickstart: the command line wires the shim, the API does so only on request.
          include_outcall_helper_mounts: true,
          interactive: options.interactive,
          tty: options.tty,
          observe_secs: options.observe === true ? OBSERVE_DEFAULT_SECS : options.observe,
        });
        for (const warning of result.warnings) writeErr(`warning: ${printable(warning)}\n`);
        return { json: result, lines: [`Container "${result.name}" created and started.`] };
      })
    );
}

function addShow(container: CommandUnknownOpts, run: Run): void {
  container.command("list").description("list agent containers, stopped ones too").action(() =>
    run(async (client) => {
      const containers = await client.containers();
      const columns = [
        { header: "NAME", width: 30 },
        { header: "IMAGE", width: 20 },
        { header: "STATE", width: 10 },
        { header: "NETWORK", width: 20 },
        { header: "CREATED", width: 0 },
      ];
      const rows = containers.map((one) => [
        one.name,
        one.image,
        one.state,
        one.network,
        one.created_at,
      ]);
      return {
        json: { containers },
        lines: rows.length === 0 ? ["No agent containers found."] : table(columns, rows),
      };
    })
  );

  container.command("inspect")
    .description("show one agent container")
    .requiredOption("--name <name>", "name of the container")
    .action((options) =>
      run(async (client) => {
        const detail = await client.container(options.name);
        return { json: detail, lines: describe(detail) };
      })
    );
}

function describe(detail: ContainerDetail): string[] {
  const list = (items: readonly string[]): string[] => items.map((item) => `  ${item}`);
  return [
    ...labels(14, [
      ["Container", detail.name],
      ["ID", detail.container_id],
      ["Image", detail.image],
      ["State", detail.state],
      ["Network", detail.network],
      ["IP Address", detail.ip_address ?? "-"],
    ]),
    "Mounts:",
    ...list(detail.mounts),
    "Environment (values redacted):",
    ...list(detail.env),
    ...labels(14, [["Created", detail.created_at]]),
  ];
}

function addEnd(container: CommandUnknownOpts, run: Run): void {
  container.command("stop")
    .description("stop an agent container")
    .requiredOption("--name <name>", "name of the container")
    .option(
      "--timeout <seconds>",
      "time between SIGTERM and SIGKILL",
      wholeNumber(0, STOP_TIMEOUT_MAX_SECS),
      STOP_TIMEOUT_DEFAULT_SECS,
    )
    .action((options) =>
      run(async (client) => {
        const result = await client.stopContainer(options.name, options.timeout);
        return {
          json: result,
          lines: [`Container "${result.name}" ${result.stopped ? "stopped" : "was not running"}.`],
        };
      })
    );

  container.command("remove")
    .description("remove an agent container")
    .requiredOption("--name <name>", "name of the container")
    .option("--force", "stop it first if it runs", false)
    .action((options) =>
      run(async (client) => {
        const result = await client.removeContainer(options.name, options.force);
        return {
          json: result,
          lines: [`Container "${result.name}" ${result.removed ? "removed" : "did not exist"}.`],
        };
      })
    );
}

function addPull(container: CommandUnknownOpts, run: Run): void {
  container.command("pull")
    .description("pull an image")
    .requiredOption("--image <ref>", "image to pull")
    .action((options, command) =>
      run(async (client) => {
        const display = new PullDisplay(options.image, progressScreen(command));
        const result = await client.pullImage(options.image, (progress) => display.show(progress))
          .finally(() => display.end());
        return {
          json: result,
          lines: [`Image "${result.image}" ${result.pulled ? "pulled" : "is up to date"}.`],
        };
      })
    );
}

/** Progress is for people who wait, and for their logs; a program reads the outcome. */
function progressScreen(command: CommandUnknownOpts): PullScreen {
  const isForPrograms = command.optsWithGlobals()["json"] === true;
  return { write: isForPrograms ? () => {} : writeErr, columns: errColumns() };
}
