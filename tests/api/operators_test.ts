import { deepEqual, equal, match, throws } from "node:assert/strict";
import fc from "fast-check";
import { admitOperator, containerIn, groupId, groupsIn } from "../../lib/api/operators.ts";
import { OutcallError } from "../../lib/errors.ts";
import { labTest, missing } from "../lab/requirements.ts";
import { type Running, withDirectory, withHostApi } from "./running.ts";

const ID = "0123456789abcdef".repeat(4);
const OTHER = "fedcba9876543210".repeat(4);

for (
  const [what, cgroup, expected] of [
    ["the host, cgroup v2", "0::/user.slice/user-1000.slice/session-1.scope\n", null],
    ["the root cgroup", "0::/\n", null],
    ["Docker with cgroupfs", `0::/docker/${ID}\n`, ID],
    ["Docker with systemd", `0::/system.slice/docker-${ID}.scope\n`, ID],
    ["Podman", `0::/machine.slice/libpod-${ID}.scope/container\n`, ID],
    ["containerd under Kubernetes", `0::/kubepods.slice/cri-containerd-${ID}.scope\n`, ID],
    ["seen from another cgroup namespace", `0::/../${ID}\n`, ID],
    ["cgroup v1", `5:devices:/docker/${ID}\n1:cpu:/docker/${ID}\n`, ID],
    ["a container inside a container", `0::/docker/${OTHER}/docker/${ID}\n`, ID],
    ["65 digits are no id (ADV-AGENT-16)", `0::/docker/${ID}0\n`, null],
    ["63 digits are no id (ADV-AGENT-16)", `0::/docker/${ID.slice(1)}\n`, null],
    ["upper case is no id", `0::/docker/${ID.toUpperCase()}\n`, null],
  ] as const
) {
  Deno.test(`containerIn() reads /proc/<pid>/cgroup: ${what}`, () => {
    equal(containerIn(cgroup), expected);
  });
}

Deno.test("groupId() finds a group by its whole name only", () => {
  const file = "root:x:0:\noutcall2:x:7:\nxoutcall:x:8:\noutcall:x:998:alice,bob\nbroken\n";
  equal(groupId(file, "outcall"), 998);
  equal(groupId(file, "nobody"), null);
  equal(groupId("outcall:x::\n", "outcall"), null);
  equal(groupId("outcall:x:9z:\n", "outcall"), null);
});

Deno.test("groupsIn() gives the effective and the supplementary groups, nothing else", () => {
  const status =
    "Name:\tsh\nUid:\t1\t2\t3\t4\nGid:\t10\t20\t30\t40\nFDSize:\t64\nGroups:\t998 27 \n";
  deepEqual(groupsIn(status), [20, 998, 27]);
  deepEqual(groupsIn("Gid:\t5\t5\t5\t5\nGroups:\t\nNStgid:\t77\n"), [5]);
});

Deno.test("a process name cannot forge group membership", () => {
  const ending = fc.constantFrom("\r", "\n", "\v", "\f", "\u2028", "\u2029", "\x85", "");
  const field = fc.constantFrom("Groups:\t998", "Groups: 998", "Gid:\t1\t998", "");
  const name = fc.tuple(fc.string(), ending, field, ending, fc.string()).map((t) => t.join(""));
  fc.assert(fc.property(name, (name) => {
    // The kernel escapes newlines and backslashes in the name (proc_pid_status(5)).
    const escaped = name.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
    deepEqual(groupsIn(`Name:\t${escaped}\nGid:\t5\t5\t5\t5\nGroups:\t6 \n`), [5, 6]);
  }));
});

Deno.test("this very process is admitted when it is the daemon's user (D22)", () => {
  admitOperator({ pid: Deno.pid, uid: Deno.uid() ?? 0, gid: Deno.gid() ?? 0 });
});

Deno.test("a process that is gone, or not visible, is refused", () => {
  const refused = (thrown: unknown): boolean =>
    thrown instanceof OutcallError && thrown.code === "peer.forbidden" && thrown.status === 403;
  // Above the largest pid_max that Linux allows.
  throws(() => admitOperator({ pid: 4_194_305, uid: 0, gid: 0 }), refused);
  throws(() => admitOperator({ pid: 0, uid: 4_294_967_295, gid: 4_294_967_295 }), refused);
});

/** Asks for the bridge with curl, started through `prefix`; the HTTP status, or 0 when none came. */
async function ask(
  path: string,
  prefix: readonly string[],
): Promise<{ status: number; body: string }> {
  const curl = ["curl", "-s", "--unix-socket", path, "-w", "\n%{http_code}"];
  const [program = "curl", ...args] = [...prefix, ...curl, "http://localhost/api/v1/bridge"];
  const { stdout } = await new Deno.Command(program, { args }).output();
  const text = new TextDecoder().decode(stdout);
  const split = text.lastIndexOf("\n");
  return { status: Number(text.slice(split + 1)), body: text.slice(0, split) };
}

/** A socket that the file system would let everybody use: only the peer check is left. */
async function withOpenSocket(test: (running: Running) => Promise<void>): Promise<void> {
  await withHostApi(async (running) => {
    Deno.chmodSync(running.directory, 0o755);
    await test(running);
  }, { admit: admitOperator, mode: 0o666 });
}

const NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

labTest("another user is refused by its credentials (ADV-HOST-01)", {
  tools: ["curl", "setpriv"],
}, () =>
  withOpenSocket(async ({ path }) => {
    equal((await ask(path, [])).status, 200);
    const { status, body } = await ask(path, NOBODY);
    equal(status, 403);
    deepEqual(JSON.parse(body), {
      ok: false,
      error: "forbidden: user 65534 may not use the host API",
      code: "peer.forbidden",
      hint: "Run the command as root or as a member of the group outcall.",
    });
  }));

labTest("root in another PID namespace is refused: it is inside a container (D22)", {
  tools: ["curl", "unshare"],
}, () =>
  withOpenSocket(async ({ path }) => {
    const { status, body } = await ask(path, ["unshare", "--pid", "--fork"]);
    equal(status, 403);
    match(body, /not open to processes inside containers/);
  }));

/** A directory in which cgroups can be made, or null where the file system is read-only. */
function cgroupRoot(): string | null {
  return ["/sys/fs/cgroup", "/sys/fs/cgroup/pids"].find(hasCgroups) ?? null;
}

function hasCgroups(root: string): boolean {
  const probe = `${root}/outcall-test-${crypto.randomUUID()}`;
  try {
    Deno.mkdirSync(probe);
  } catch {
    return false; // not there, or not ours to write to
  }
  try {
    return Deno.readTextFileSync(`${probe}/cgroup.procs`) === "";
  } catch {
    return false; // no cgroup file system: hierarchies of version 1 are mounted below a plain folder
  } finally {
    Deno.removeSync(probe);
  }
}

const root = missing({ tools: ["curl"] }) === null ? cgroupRoot() : null;

Deno.test({
  name: "root in a container's cgroup is refused, even with --pid host (D22)" +
    (root === null ? " [skipped: needs root, curl and writable cgroups]" : ""),
  ignore: root === null,
  fn: () =>
    withOpenSocket(async ({ path }) => {
      const bytes = crypto.getRandomValues(new Uint8Array(32));
      const id = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
      const cgroup = `${root}/docker-${id}.scope`;
      Deno.mkdirSync(cgroup);
      try {
        const enter = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', cgroup];
        const { status, body } = await ask(path, enter);
        equal(status, 403);
        match(body, /not open to processes inside containers/);
      } finally {
        Deno.removeSync(cgroup);
      }
    }),
});

/** Runs `test` against a host API in a process of its own, started through `prefix`. */
async function withServer(
  path: string,
  prefix: readonly [string, ...string[]],
  test: () => Promise<void>,
): Promise<void> {
  const script = new URL("./operator_host.ts", import.meta.url).pathname;
  const [program, ...args] = prefix;
  const server = new Deno.Command(program, {
    args: [...args, Deno.execPath(), "run", "--no-check", "-A", script, path],
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  try {
    const reader = server.stdout.getReader();
    equal(new TextDecoder().decode((await reader.read()).value), "ready\n");
    reader.releaseLock();
    await test();
  } finally {
    server.kill("SIGKILL");
    await server.stdout.cancel();
    await server.status;
  }
}

labTest("members of the group outcall are operators, by primary or supplementary group (D22)", {
  tools: ["curl", "setpriv", "unshare", "mount"],
}, () =>
  withDirectory(async (directory) => {
    Deno.chmodSync(directory, 0o755);
    const groups = `${directory}/group`;
    Deno.writeTextFileSync(groups, "root:x:0:\noutcall:x:64321:\n");
    const path = `${directory}/host.sock`;
    // A mount namespace of its own gives the server a group file without touching the machine's.
    const mount = 'mount --bind "$0" /etc/group && exec "$@"';
    await withServer(path, ["unshare", "--mount", "sh", "-c", mount, groups], async () => {
      const file = Deno.lstatSync(path);
      deepEqual([(file.mode ?? 0) & 0o777, file.uid, file.gid], [0o660, 0, 64321]);
      const as = (...options: string[]): string[] => ["setpriv", "--reuid=65534", ...options];
      equal((await ask(path, as("--regid=64321", "--clear-groups"))).status, 200);
      equal((await ask(path, as("--regid=65534", "--groups=64321"))).status, 200);
      equal((await ask(path, NOBODY)).status, 0); // the file's mode stops it before it connects
      Deno.chmodSync(path, 0o666);
      equal((await ask(path, NOBODY)).status, 403);
    });
  }));

labTest("a daemon in a PID namespace of its own goes by the user alone (D21, D22)", {
  tools: ["curl", "setpriv", "unshare"],
}, () =>
  withDirectory(async (directory) => {
    Deno.chmodSync(directory, 0o755);
    const path = `${directory}/host.sock`;
    // What the quickstart's `docker run` without --pid host does to the daemon.
    const inside = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"] as const;
    await withServer(path, inside, async () => {
      equal((await ask(path, [])).status, 200);
      Deno.chmodSync(path, 0o666);
      equal((await ask(path, NOBODY)).status, 403);
    });
  }));
