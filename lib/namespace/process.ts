/**
 * The caller's side of `outcall run`: a network namespace whose only way out is the cable that the
 * daemon lays, and in it the command, without any privilege.
 *
 * Order is what keeps it safe: the namespace exists before the daemon is asked, the command starts
 * only when its port is under enforcement, and any failure in between starts nothing. What holds the
 * namespace are this process and the command's, so the kernel takes cable and address back when they
 * have ended, however they end.
 */
import { InvalidArgumentError } from "@commander-js/extra-typings";
import type { HostClient } from "../api/client.ts";
import type { AgentAttachment } from "../api/services.ts";
import { proxyVariables } from "../docker/request.ts";
import { messageOf, OutcallError } from "../errors.ts";
import { SystemError } from "../linux/libc.ts";
import { enterNewNetwork, keepFilesToOurselves } from "../linux/namespaces.ts";
import { RouteNetlink } from "../linux/rtnetlink.ts";

/** Whom a command runs as; neither id is 0. */
export interface User {
  readonly uid: number;
  readonly gid: number;
}

/** What to run. */
export interface AgentCommand {
  readonly command: readonly string[];
  readonly name: string | undefined;
  readonly network: string | undefined;
  readonly user: User;
  /** Observe it for so long; undefined: not at all. */
  readonly observeSecs: number | undefined;
}

/** A user no host knows: it owns no file. */
const NOBODY: User = { uid: 65_532, gid: 65_532 };

const MAX_ID = 2_147_483_647;

function id(text: string | undefined): number | null {
  const value = Number(text);
  return text !== undefined && /^[1-9][0-9]{0,9}$/.test(text) && value <= MAX_ID ? value : null;
}

/**
 * Reads `UID:GID`.
 * @throws InvalidArgumentError unless both are numbers from 1.
 */
export function userOf(text: string): User {
  const [uidText, gidText, ...more] = text.split(":");
  const [uid, gid] = [id(uidText), id(gidText)];
  if (uid === null || gid === null || more.length > 0) {
    throw new InvalidArgumentError("It must be UID:GID, both numbers and neither 0.");
  }
  return { uid, gid };
}

/** Who called sudo, else a user who owns nothing. */
export function defaultUser(): User {
  const [uid, gid] = [id(Deno.env.get("SUDO_UID")), id(Deno.env.get("SUDO_GID"))];
  return uid === null || gid === null ? NOBODY : { uid, gid };
}

/**
 * Runs as process 1 of its own PID namespace, as root, until the last line.
 *
 * The host's processes are out of sight, so nothing outside can be traced or asked to act. /run and
 * /tmp are empty: there are the sockets of Docker, D-Bus, ssh-agent and terminal multiplexers, through
 * which a process of the same user outside could be made to do what the agent may not.
 * resolv.conf may be a link into /run, so its target is made where it is missing. What is shown there
 * of the host, the agent socket and the shim, is held by descriptors from before /run was empty, and
 * the command gets none of them: from a folder it could climb out by `..`.
 *
 * The shell stays as process 1, which the kernel shields from signals that it does not handle: a
 * command in that place would not end on Ctrl-C. The command gets a session of its own, so that the
 * operator's terminal is not its controlling one: it could type into it otherwise (TIOCSTI).
 */
const INIT = `
set -e
exec 8< "$OUTCALL_SOCKETS"
if [ -f "$OUTCALL_SHIM" ]; then exec 9< "$OUTCALL_SHIM"; fi
target=$(readlink -m /etc/resolv.conf)
mount -t tmpfs -o mode=755,nosuid,nodev outcall /run
mount -t tmpfs -o mode=1777,nosuid,nodev outcall /tmp
printf 'nameserver %s\\noptions ndots:0\\n' "$OUTCALL_GATEWAY" > /run/resolv.conf
if [ ! -e "$target" ]; then mkdir -p "$(dirname "$target")"; : > "$target"; fi
mount --bind /run/resolv.conf "$target"
mkdir /run/outcall /run/bin
mount --no-canonicalize -o bind,ro /proc/self/fd/8 /run/outcall
if [ -e /proc/self/fd/9 ]; then
  : > /run/bin/outcall-agent
  mount --no-canonicalize -o bind,ro /proc/self/fd/9 /run/bin/outcall-agent
fi
exec 8<&- 9<&-
ids=$1
shift
unset OUTCALL_GATEWAY OUTCALL_SOCKETS OUTCALL_SHIM
PATH=/run/bin:$PATH
cd "$PWD" 2> /dev/null || cd /
set +e
setsid setpriv --reuid "\${ids%:*}" --regid "\${ids#*:}" --clear-groups --no-new-privs \\
  --bounding-set=-all --inh-caps=-all --ambient-caps=-all -- "$@"
exit $?
`;

/** Ends with this process, even if it is killed, and takes the whole PID namespace with it. */
const WRAP = [
  ...["setpriv", "--pdeathsig", "KILL", "--"],
  ...["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"],
  ...["--propagation", "private", "--", "sh", "-c", INIT, "outcall-run"],
];

/** What others send, for the command to handle. */
const FOR_COMMAND: readonly Deno.Signal[] = ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"];
/** What the terminal sends to all that run in its foreground. */
const FOR_GROUP: readonly Deno.Signal[] = ["SIGINT", "SIGQUIT", "SIGWINCH"];

/**
 * Runs a command as an agent, with our own input, output and terminal.
 * @returns its exit code, 128 + the signal's number where one ended it.
 * @throws OutcallError `run.permission` (403), `run.start` (500), and what the daemon refuses with;
 * the command was not started then.
 */
export async function runAgent(client: HostClient, agent: AgentCommand): Promise<number> {
  const [program, ...prefix] = WRAP;
  if (program === undefined) throw new RangeError("there is nothing to run");
  keepFilesToOurselves();
  isolate();
  const attachment = await client.attachAgent({ name: agent.name, network: agent.network });
  setUp(attachment);
  await client.joinAgent(attachment.port, agent.observeSecs);
  const { uid, gid } = agent.user;
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command(program, {
      args: [...prefix, `${uid}:${gid}`, ...agent.command],
      env: environment(attachment, agent.user),
      clearEnv: true,
      stdin: "inherit",
      stdout: "inherit",
      stderr: "inherit",
    }).spawn();
  } catch (error) {
    throw new OutcallError(500, "run.start", `cannot start ${program}: ${messageOf(error)}`, {
      hint: "Install util-linux (setpriv, unshare).",
    });
  }
  return await exitCodeOf(child);
}

/** Leaves the host's network. */
function isolate(): void {
  try {
    enterNewNetwork();
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    throw new OutcallError(
      error.code === "EPERM" ? 403 : 500,
      "run.permission",
      `cannot make a network namespace: ${error.message}`,
      { hint: "Use sudo: the command itself runs without any privilege." },
    );
  }
}

/** Sets up our end of the cable. */
function setUp(attachment: AgentAttachment): void {
  using netlink = new RouteNetlink();
  const [loopback, cable] = [netlink.link("lo"), netlink.link(attachment.interface)];
  if (loopback === null || cable === null) {
    throw new OutcallError(500, "run.start", "the daemon's cable has not arrived here");
  }
  netlink.setUp(loopback);
  netlink.addAddress(cable, attachment.address, attachment.prefix_length);
  netlink.setUp(cable);
  netlink.addDefaultRoute(attachment.gateway);
}

/** Our own environment, with the proxy's variables and the user's home instead of root's. */
function environment(
  { gateway, proxy_port: proxyPort, agent_socket_folder: sockets, shim }: AgentAttachment,
  user: User,
): Record<string, string> {
  const inherited = Object.entries(Deno.env.toObject()).filter(([name]) =>
    !/_proxy$/i.test(name) && !name.startsWith("SUDO_")
  );
  const proxy = proxyVariables(gateway, proxyPort).map((entry) => {
    const equals = entry.indexOf("=");
    return [entry.slice(0, equals), entry.slice(equals + 1)];
  });
  const { home, name } = accountOf(user);
  return {
    ...Object.fromEntries(inherited),
    ...Object.fromEntries(proxy),
    HOME: home,
    USER: name,
    LOGNAME: name,
    OUTCALL_GATEWAY: gateway,
    OUTCALL_SOCKETS: sockets,
    OUTCALL_SHIM: shim,
  };
}

function accountOf({ uid }: User): { readonly home: string; readonly name: string } {
  const lines = Deno.readTextFileSync("/etc/passwd").split("\n").map((line) => line.split(":"));
  const [name = String(uid), , , , , home = "/tmp"] =
    lines.find((fields) => fields[2] === String(uid)) ?? [];
  return { home, name };
}

/** Waits for the end, and hands on the signals that only we get. */
async function exitCodeOf(child: Deno.ChildProcess): Promise<number> {
  const handlers = [...FOR_COMMAND, ...FOR_GROUP].map((signal) =>
    [signal, () => forward(child.pid, signal)] as const
  );
  for (const [signal, handler] of handlers) Deno.addSignalListener(signal, handler);
  try {
    return (await child.status).code;
  } finally {
    for (const [signal, handler] of handlers) Deno.removeSignalListener(signal, handler);
  }
}

/** The command is the child of the namespace's process 1, which is the child of `unshare`. */
function forward(pid: number, signal: Deno.Signal): void {
  const command = onlyChild(onlyChild(pid));
  try {
    if (command !== null) Deno.kill(FOR_GROUP.includes(signal) ? -command : command, signal);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error; // it has ended
  }
}

function onlyChild(pid: number | null): number | null {
  if (pid === null) return null;
  try {
    const text = Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`);
    return id(text.trim().split(" ")[0]);
  } catch {
    return null; // it has ended
  }
}
