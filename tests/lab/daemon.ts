/** A running `outcalld` of the lab: its log, and its two ways to end. */
import type { Machine } from "./machine.ts";
import type { Process } from "./process.ts";

/** Longest time from the start to the answer of the readiness endpoint. */
const READY_TIMEOUT_MS = 20_000;
const POLL_MS = 25;

/** Tells its process id (exec keeps it) before it becomes the daemon. */
const START = `
echo $$
if [ -n "$LOG_FILE" ]; then exec 2>"$LOG_FILE"; fi
exec outcalld "$@"
`;

/** Where the log goes, and how much of it there is. */
export interface LogOptions {
  /**
   * A file on the machine that gets the log at its default level. Without it everything goes to
   * {@linkcode Daemon.log}, which is no way to measure a daemon: we would take part in its work.
   */
  readonly logFile?: string;
  /** Further environment. */
  readonly env?: Readonly<Record<string, string>>;
}

/** One `outcalld` process. */
export class Daemon {
  private constructor(
    readonly machine: Machine,
    readonly process: Process,
    /** As counted on the machine. */
    readonly pid: number,
  ) {}

  /**
   * Starts `outcalld` with `flags` and waits until it says that it is ready.
   * @throws Error with the daemon's log when it ends before, or takes too long.
   */
  static async start(
    machine: Machine,
    flags: readonly string[],
    { logFile, env }: LogOptions = {},
  ): Promise<Daemon> {
    const process = machine.spawn(
      ["bash", "-c", START, "outcalld", "--log-format", "json", ...flags],
      {
        env: {
          ...env,
          ...logFile === undefined ? { OUTCALL_LOG: "debug" } : { LOG_FILE: logFile },
        },
      },
    );
    const pid = Number(await process.line("stdout", () => true));
    const daemon = new Daemon(machine, process, pid);
    const socket = flags[flags.indexOf("--socket") + 1];
    await daemon.#ready(flags.includes("--socket") && socket ? socket : "/run/outcall/host.sock");
    return daemon;
  }

  /** Its log so far, one JSON object a line. */
  get log(): readonly string[] {
    return this.process.stderr;
  }

  /** Ends it as a supervisor does (SIGTERM); returns its exit code. */
  async stop(): Promise<number> {
    await this.machine.kill(this.pid, "TERM");
    return await this.process.ended;
  }

  /** Ends it without a chance to clean up (SIGKILL). */
  async kill(): Promise<void> {
    await this.machine.kill(this.pid, "KILL");
    await this.process.ended;
  }

  async #ready(socket: string): Promise<void> {
    let ended = false;
    void this.process.ended.then(() => ended = true);
    const deadline = Date.now() + READY_TIMEOUT_MS;
    const probe = [
      ...["curl", "-fsS", "--max-time", "2", "--unix-socket", socket],
      "http://localhost/api/v1/ready",
    ];
    for (;;) {
      if ((await this.machine.run(probe)).code === 0) return;
      if (ended || Date.now() > deadline) {
        throw new Error(
          `outcalld ${ended ? "ended" : "is not ready in time"}:\n${this.log.join("\n")}`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }
}
