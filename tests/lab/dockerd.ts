/**
 * A real Docker Engine of the test's own: inside a network namespace, with its own data, sockets
 * and control groups, so that it shares nothing with a Docker that the machine may run.
 */
// @ts-types="@types/dockerode"
import Dockerode from "dockerode";
import { messageOf } from "../../lib/errors.ts";

/** A running engine. */
export interface Dockerd {
  /** Path of its Unix socket. */
  readonly socket: string;
  /** Ends the engine with its containers and removes every trace; safe to call twice. */
  stop(): Promise<void>;
}

/** Longest time the engine gets to answer its first ping; it takes about 0.5 s. */
const START_TIMEOUT_MS = 30_000;
/** Longest time for an orderly end; it takes about 0.2 s. */
const STOP_TIMEOUT_MS = 20_000;

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** A client for the engine behind `socket`, whatever DOCKER_HOST says. */
export function dockerAt(socket: string): Dockerode {
  // Dockerode prefers a host from the environment to the path it is given.
  const options: Dockerode.DockerOptions = { socketPath: socket, protocol: "http" };
  return new Dockerode(Object.assign(options, { host: undefined }));
}

/** Processes whose command line names `folder`, which is unique to one engine. */
async function processesOf(folder: string): Promise<number[]> {
  const pids: number[] = [];
  for await (const entry of Deno.readDir("/proc")) {
    if (!/^\d+$/.test(entry.name)) continue;
    const commandLine = await Deno.readTextFile(`/proc/${entry.name}/cmdline`).catch(() => "");
    if (commandLine.includes(`${folder}/`)) pids.push(Number(entry.name));
  }
  return pids;
}

/** Kills what an engine that did not end in order has left: its containerd, shims and proxies. */
async function killRemains(folder: string): Promise<void> {
  for (let attempt = 0; attempt < 50; attempt++) {
    const pids = await processesOf(folder);
    if (pids.length === 0) return;
    for (const pid of pids) {
      try {
        Deno.kill(pid, "SIGKILL");
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
    }
    await sleep(100);
  }
  throw new Error(`processes of ${folder} survive SIGKILL`);
}

/** Detaches every mount below `folder`, the innermost first. */
async function unmountBelow(folder: string): Promise<void> {
  const table = await Deno.readTextFile("/proc/self/mounts");
  const points = table.split("\n").map((line) => line.split(" ")[1] ?? "")
    .filter((point) => point.startsWith(`${folder}/`));
  for (const point of points.reverse()) {
    await new Deno.Command("umount", { args: ["--lazy", point] }).output();
  }
}

/** Removes the control groups of one engine; empty by now, so plain rmdir from the leaves up. */
export async function removeControlGroups(name: string): Promise<void> {
  const roots = ["/sys/fs/cgroup"];
  for await (const entry of Deno.readDir("/sys/fs/cgroup")) {
    if (entry.isDirectory) roots.push(`/sys/fs/cgroup/${entry.name}`);
  }
  const remove = async (folder: string): Promise<void> => {
    try {
      for await (const entry of Deno.readDir(folder)) {
        if (entry.isDirectory) await remove(`${folder}/${entry.name}`);
      }
      await new Deno.Command("rmdir", { args: [folder], stderr: "null" }).output();
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  };
  for (const root of roots) await remove(`${root}/${name}`);
}

/**
 * Starts an engine in network namespace `netns`: a file such as `/proc/<pid>/ns/net`, or a name
 * under /run/netns.
 * @throws Error with the end of the engine's log when it does not answer; nothing is left behind.
 */
export async function startDockerd(netns: string): Promise<Dockerd> {
  const folder = await Deno.makeTempDir({ prefix: "outcall-dockerd-" });
  const name = folder.slice(folder.lastIndexOf("/") + 1);
  const socket = `${folder}/docker.sock`;
  // The shell opens the log: Deno cannot hand a file to a child.
  const engine = new Deno.Command("nsenter", {
    args: [
      // Not `ip netns exec`, which mounts a new /sys and so hides the control groups.
      `--net=${netns.startsWith("/") ? netns : `/run/netns/${netns}`}`,
      "sh",
      "-c",
      'exec "$@" >"$0" 2>&1',
      `${folder}/log`,
      "dockerd",
      `--data-root=${folder}/data`,
      `--exec-root=${folder}/exec`,
      `--host=unix://${socket}`,
      `--pidfile=${folder}/pid`,
      "--bip=172.30.0.1/24",
      "--exec-opt=native.cgroupdriver=cgroupfs",
      `--cgroup-parent=/${name}`,
    ],
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();

  let stopping: Promise<void> | undefined;
  const docker = dockerAt(socket);
  const stop = async (): Promise<void> => {
    // Told to end, the engine would wait 10 s for each container that ignores SIGTERM.
    const containers = await docker.listContainers().catch(() => []);
    await Promise.allSettled(containers.map(({ Id }) => docker.getContainer(Id).kill()));
    try {
      engine.kill("SIGTERM");
    } catch {
      // It has ended already.
    }
    const late = setTimeout(() => engine.kill("SIGKILL"), STOP_TIMEOUT_MS);
    await engine.status;
    clearTimeout(late);
    await killRemains(folder);
    await unmountBelow(folder);
    await removeControlGroups(name);
    await Deno.remove(folder, { recursive: true });
  };
  const stopOnce = (): Promise<void> => stopping ??= stop();

  const deadline = Date.now() + START_TIMEOUT_MS;
  for (;;) {
    try {
      await docker.ping();
      return { socket, stop: stopOnce };
    } catch (error) {
      if (Date.now() > deadline) {
        const text = await Deno.readTextFile(`${folder}/log`);
        await stopOnce();
        throw new Error(`dockerd does not answer: ${messageOf(error)}\n${text.slice(-4000)}`);
      }
      await sleep(50);
    }
  }
}

/** Runs a program and returns what it prints; throws with its complaint when it fails. */
async function run(program: string, args: readonly string[]): Promise<string> {
  const result = await new Deno.Command(program, { args: [...args] }).output();
  const decoder = new TextDecoder();
  if (!result.success) {
    throw new Error(`${program} ${args.join(" ")}: ${decoder.decode(result.stderr)}`);
  }
  return decoder.decode(result.stdout);
}

/** Where `program` lies on this machine. */
async function find(program: string): Promise<string> {
  for (const folder of ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin"]) {
    const path = `${folder}/${program}`;
    if (await Deno.stat(path).then((info) => info.isFile, () => false)) return path;
  }
  throw new Error(`no ${program} on this machine to put into an image`);
}

/** Every file `path` needs to run: itself and the libraries the loader would map. */
async function withLibraries(path: string): Promise<string[]> {
  const listing = await new Deno.Command("ldd", { args: [path] }).output();
  // A script or a static program has none, and ldd says so with a failure.
  const text = listing.success ? new TextDecoder().decode(listing.stdout) : "";
  return [path, ...[...text.matchAll(/(\/\S+) \(0x/g)].map((match) => match[1] ?? "")];
}

const ETC: Readonly<Record<string, string>> = {
  "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nagent:x:65532:65532::/tmp:/bin/bash\n",
  "etc/group": "root:x:0:\nagent:x:65532:\n",
  "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
  "etc/services": "domain 53/udp\ndomain 53/tcp\nhttp 80/tcp\nhttps 443/tcp\n",
};

/**
 * Makes image `name` (with tag) out of `binaries` of this machine, such as `curl` or `dig`, with
 * their libraries; `python3` brings its standard library. No registry is needed.
 * @param files Further files by absolute path, such as a CA certificate.
 * @param labels Labels of the image.
 */
export async function importImage(
  socket: string,
  name: string,
  binaries: readonly string[],
  files: Readonly<Record<string, string>> = {},
  labels: Readonly<Record<string, string>> = {},
): Promise<void> {
  const root = await Deno.makeTempDir({ prefix: "outcall-image-" });
  try {
    // Merged /usr as on Debian, so that either spelling of a path works.
    for (const folder of ["bin", "sbin", "lib", "lib64"]) {
      await Deno.mkdir(`${root}/usr/${folder}`, { recursive: true });
      await Deno.symlink(`usr/${folder}`, `${root}/${folder}`);
    }
    for (const folder of ["etc", "root", "run", "tmp", "var", "proc", "sys", "dev"]) {
      await Deno.mkdir(`${root}/${folder}`, { recursive: true });
    }
    await Deno.chmod(`${root}/tmp`, 0o1777);
    await Deno.symlink("/run", `${root}/var/run`);

    const paths = new Set<string>();
    for (const binary of binaries) {
      for (const path of await withLibraries(await find(binary))) paths.add(path);
    }
    if (binaries.includes("python3")) {
      const [library, extensions] = (await run("/usr/bin/python3", [
        "-c",
        "import sysconfig as s; print(s.get_path('stdlib')); print(s.get_path('platstdlib')+'/lib-dynload')",
      ])).trim().split("\n");
      if (library === undefined || extensions === undefined) throw new Error("no python library");
      await Deno.mkdir(`${root}${library}`, { recursive: true });
      await run("sh", [
        "-c",
        'cd "$0" && tar -c --exclude=test --exclude=__pycache__ --exclude=config-* . | tar -x -C "$1"',
        library,
        `${root}${library}`,
      ]);
      for await (const entry of Deno.readDir(extensions)) {
        for (const path of await withLibraries(`${extensions}/${entry.name}`)) paths.add(path);
      }
    }
    for (const path of paths) {
      const target = `${root}${path}`;
      await Deno.mkdir(target.slice(0, target.lastIndexOf("/")), { recursive: true });
      await Deno.copyFile(await Deno.realPath(path), target); // keeps the mode, follows links
    }
    for (const [path, text] of Object.entries({ ...ETC, ...files })) {
      const target = `${root}/${path.replace(/^\//, "")}`;
      await Deno.mkdir(target.slice(0, target.lastIndexOf("/")), { recursive: true });
      await Deno.writeTextFile(target, text);
    }

    const archive = `${root}.tar`;
    try {
      await run("tar", ["-c", "-f", archive, "-C", root, "--owner=0", "--group=0", "."]);
      const [repo, tag = "latest"] = name.split(":");
      const changes = [
        "ENV PATH=/usr/local/bin:/usr/bin:/usr/sbin",
        'CMD ["/bin/bash"]',
        ...Object.entries(labels).map(([key, value]) => `LABEL ${key}=${value}`),
      ];
      const progress = await dockerAt(socket).importImage(archive, { repo, tag, changes });
      // The stream ends when the image exists; an error is one of its lines.
      let text = "";
      for await (const chunk of progress) text += String(chunk);
      if (text.includes('"error"')) throw new Error(`importing ${name}: ${text}`);
    } finally {
      await Deno.remove(archive).catch(() => {});
    }
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}
