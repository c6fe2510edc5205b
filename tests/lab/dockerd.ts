/** What a Docker Engine of the lab needs from outside: images without a registry, and a last sweep. */
// @ts-types="@types/dockerode"
import Dockerode from "dockerode";
import { eventually } from "../eventually.ts";

/** A client for the engine behind `socket`, whatever DOCKER_HOST says. */
export function dockerAt(socket: string): Dockerode {
  // Dockerode prefers a host from the environment to the path it is given.
  const options: Dockerode.DockerOptions = { socketPath: socket, protocol: "http" };
  return new Dockerode(Object.assign(options, { host: undefined }));
}

/** Removes an empty control group with those below it; says whether it is gone. */
function removeControlGroup(folder: string): boolean {
  try {
    for (const entry of Deno.readDirSync(folder)) {
      if (entry.isDirectory) removeControlGroup(`${folder}/${entry.name}`);
    }
    Deno.removeSync(folder); // rmdir: the files in it are the kernel's
    return true;
  } catch (error) {
    return error instanceof Deno.errors.NotFound;
  }
}

/**
 * Removes the control groups of one engine whose processes have ended. The kernel lets go of them a
 * moment later, so this may take some attempts.
 */
export async function removeControlGroups(name: string): Promise<void> {
  const root = "/sys/fs/cgroup";
  const hierarchies = [...Deno.readDirSync(root)].filter((entry) => entry.isDirectory);
  const folders = [root, ...hierarchies.map((entry) => `${root}/${entry.name}`)];
  await eventually(
    () => folders.map((folder) => removeControlGroup(`${folder}/${name}`)).every(Boolean),
    `control groups ${name} are no longer in use`,
  );
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

/** Where `program` lies on this machine; a path stands for itself. */
async function find(program: string): Promise<string> {
  if (program.startsWith("/")) return program;
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
 * Makes image `name` (with tag) out of `binaries` of this machine, such as `curl` or an absolute
 * path, with their libraries; `python3` brings its standard library. No registry is needed.
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
