/** Agent containers on a real Docker Engine, seen from outside and from inside. */
import assert from "node:assert/strict";
import type { PullProgress } from "../../lib/api/services.ts";
import { ContainerManager } from "../../lib/docker/containers.ts";
import { OutcallError } from "../../lib/errors.ts";
import { importImage } from "../lab/dockerd.ts";
import { labTest } from "../lab/requirements.ts";
import { DockerLab, IMAGE, judgedBy, TOOLS } from "./lab.ts";

/** Whether `error` is the product's, with this status, code and (part of) text. */
function isError(status: number, code: string, text: string): (error: unknown) => boolean {
  return (error) => {
    assert(error instanceof OutcallError, String(error));
    assert.deepEqual([error.status, error.code], [status, code], error.message);
    assert(error.message.includes(text), `${error.message} lacks ${text}`);
    return true;
  };
}

/** Host files a manager works with, in a folder of their own. */
class HostFiles implements Disposable {
  readonly folder = Deno.makeTempDirSync({ prefix: "outcall-docker-test-" });
  readonly hostSocket = `${this.folder}/run/host.sock`;
  readonly agentSocket = `${this.folder}/run/agent.sock`;
  readonly mountedFolder = `${this.agentSocket}.d`;
  readonly mountedSocket = `${this.mountedFolder}/agent.sock`;
  readonly shim = `${this.folder}/outcall-agent`;
  readonly state = `${this.folder}/state`;
  readonly work = `${this.folder}/project`;
  readonly #listeners: Deno.Listener[] = [];

  constructor() {
    for (const name of ["run", "state", "project"]) Deno.mkdirSync(`${this.folder}/${name}`);
    Deno.mkdirSync(this.mountedFolder);
    for (const path of [this.hostSocket, this.agentSocket, this.mountedSocket]) {
      this.#listeners.push(Deno.listen({ transport: "unix", path }));
    }
    Deno.writeTextFileSync(this.shim, "#!/bin/bash\necho shim runs\n", { mode: 0o755 });
    Deno.writeTextFileSync(`${this.work}/hello`, "hello");
    // Containers run as a user who owns nothing here.
    Deno.chmodSync(this.folder, 0o755);
  }

  /** Closes `listener` at the end. */
  adopt(listener: Deno.Listener): void {
    this.#listeners.push(listener);
  }

  [Symbol.dispose](): void {
    for (const listener of this.#listeners) listener.close();
    Deno.removeSync(this.folder, { recursive: true });
  }
}

labTest("containers on a real Docker Engine", { tools: TOOLS }, async (t) => {
  await using lab = await DockerLab.start();
  using files = new HostFiles();
  const networks = lab.networks();
  const manager = (
    agentSocketPath = files.agentSocket,
    shimPath = files.shim,
    rules = judgedBy(),
  ): ContainerManager =>
    new ContainerManager({
      ...rules,
      engine: lab.engine,
      networks,
      proxyPort: 8080,
      agentSocketPath,
      shimPath,
      protectedPaths: [files.hostSocket, files.state],
    });
  const containers = manager();
  const sleeper = { image: IMAGE, cmd: ["sleep", "1000"] };
  const names = async (): Promise<string[]> =>
    (await lab.docker.listContainers({ all: true })).flatMap(({ Names }) => Names).sort();
  const inside = async (name: string, ...argv: string[]): Promise<string> => {
    const finished = await lab.labEngine.docker(["exec", name, ...argv]);
    return `${finished.stdout}${finished.stderr}`.trim();
  };
  const step = async (name: string, run: () => Promise<void>): Promise<void> => {
    await networks.ensureDefault();
    await networks.create({ name: "staging" });
    await t.step(name, run);
    await lab.clear();
  };

  await step("a container is hardened whatever its image says (S008-AS-001, SC-001)", async () => {
    const made = await containers.create({ ...sleeper, include_outcall_helper_mounts: true });
    assert.match(made.name, /^outcall-[0-9a-f]{8}$/);
    assert.equal(made.created, true);
    const { HostConfig, Config, NetworkSettings, Mounts, State } = await lab.docker
      .getContainer(made.container_id).inspect();
    assert.equal(State.Running, true);
    assert.equal(HostConfig.NetworkMode, "outcall-default");
    assert.deepEqual(Object.keys(NetworkSettings.Networks), ["outcall-default"]);
    assert.equal(HostConfig.ReadonlyRootfs, true);
    assert.equal(HostConfig.Privileged, false);
    assert.equal(HostConfig.Init, true);
    assert.equal(HostConfig.PidsLimit, 256);
    assert.equal(HostConfig.Memory, 536_870_912);
    assert.equal(HostConfig.CpuShares, 1_024);
    assert.deepEqual(HostConfig.CapDrop, ["ALL"]);
    assert.deepEqual(HostConfig.SecurityOpt, ["no-new-privileges:true"]);
    assert.deepEqual(HostConfig.Tmpfs, { "/tmp": "rw,nosuid,nodev,mode=1777" });
    assert.deepEqual(HostConfig.Dns, ["10.200.255.1"]);
    assert.deepEqual(HostConfig.DnsOptions, ["ndots:0"]);
    assert.equal(HostConfig.RestartPolicy?.Name ?? "", "");
    assert.equal(Config.User, "65532:65532");
    assert.equal(Config.Labels["managed-by"], "outcalld");
    assert.equal(Config.Labels["outcall.network"], "outcall-default");
    assert.match(Config.Labels["outcall.created-at"] ?? "", /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
    assert.deepEqual(
      Mounts.map(({ Source, Destination, RW }) => [Source, Destination, RW]).sort(),
      [
        [files.shim, "/usr/local/bin/outcall-agent", false],
        [files.mountedFolder, "/run/outcall", false],
      ],
    );
  });

  await step(
    "inside, the agent is nobody, can write to /tmp only, and finds its helpers",
    async () => {
      const { name } = await containers.create({ ...sleeper, include_outcall_helper_mounts: true });
      assert.equal(await inside(name, "id", "-u"), "65532");
      assert.match(await inside(name, "cat", "/proc/self/status"), /CapEff:\s+0+\n/);
      assert.match(await inside(name, "cat", "/proc/self/status"), /NoNewPrivs:\s+1\n/);
      assert.match(await inside(name, "bash", "-c", "echo x > /etc/x"), /Read-only file system/);
      assert.match(await inside(name, "bash", "-c", "echo x > /x"), /Read-only file system/);
      assert.equal(await inside(name, "bash", "-c", "echo x > /tmp/x && cat /tmp/x"), "x");
      // S008-AS-013, S008-SC-004
      assert.equal(await inside(name, "ls", "/run/outcall"), "agent.sock");
      assert.equal(await inside(name, "outcall-agent"), "shim runs");
      // S008-AS-014, S008-SC-005
      const env = await inside(name, "env");
      for (const variable of ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"]) {
        assert.match(env, new RegExp(`^${variable}=http://10.200.255.1:8080$`, "m"));
      }
      assert.match(env, /^no_proxy=localhost,127\.0\.0\.1$/m);
      // On a network of its own Docker's resolver stands in front, and asks the gateway.
      const resolver = await inside(name, "cat", "/etc/resolv.conf");
      assert.match(resolver, /^nameserver 127\.0\.0\.11$/m);
      assert.match(resolver, /ndots:0/);
      assert.doesNotMatch(resolver, /^search \w/m);
    },
  );

  await step("a socket made anew is seen inside, since its folder is mounted (D20)", async () => {
    const { name } = await containers.create({ ...sleeper, include_outcall_helper_mounts: true });
    await Deno.remove(files.mountedSocket);
    const listener = Deno.listen({ transport: "unix", path: files.mountedSocket });
    await Deno.chmod(files.mountedSocket, 0o666);
    const served = listener.accept().then((connection) => connection.close());
    assert.equal(
      await inside(name, "bash", "-c", "nc -N -U /run/outcall/agent.sock </dev/null && echo met"),
      "met",
    );
    await served;
    files.adopt(listener);
  });

  await step("without helper mounts there are none (S008-FR-004)", async () => {
    const { name } = await containers.create(sleeper);
    assert.deepEqual((await containers.inspect(name)).mounts, []);
    assert.match(await inside(name, "ls", "/run/outcall"), /No such file/);
  });

  await step(
    "limits, user, network, command and folder are the caller's (S008-AS-012)",
    async () => {
      const { name } = await containers.create({
        image: IMAGE,
        network: "staging",
        name: "my-task-1",
        user: "1000:1001",
        memory_limit: 268_435_456,
        cpu_shares: 512,
        env: ["MY_VAR=value", "HTTP_PROXY=http://evil:1", "no_proxy=*"],
        entrypoint: ["bash", "-c"],
        cmd: ["sleep 1000"],
        working_dir: "/workspace",
        volumes: [`${files.work}:/workspace`],
        interactive: true,
        tty: true,
      });
      assert.equal(name, "my-task-1");
      const { HostConfig, Config, Mounts } = await lab.docker.getContainer(name).inspect();
      assert.deepEqual([HostConfig.Memory, HostConfig.CpuShares], [268_435_456, 512]);
      assert.deepEqual([Config.OpenStdin, Config.Tty], [true, true]);
      assert.deepEqual(HostConfig.Dns, ["10.200.0.1"]);
      assert.deepEqual(Mounts.map(({ Source, Destination }) => [Source, Destination]), [
        [files.work, "/workspace"],
      ]);
      assert.equal(
        await inside(name, "bash", "-c", "id -u; id -g; pwd; cat hello"),
        "1000\n1001\n/workspace\nhello",
      );
      const env = await inside(name, "env");
      assert.match(env, /^MY_VAR=value$/m);
      assert.match(env, /^HTTP_PROXY=http:\/\/10\.200\.0\.1:8080$/m);
      assert.doesNotMatch(env, /evil|no_proxy=\*/);
    },
  );

  await step(
    "control sockets and policy cannot be mounted, by any name (S008-AS-002)",
    async () => {
      const link = `${files.folder}/link`;
      await Deno.symlink(files.hostSocket, link);
      await Deno.symlink(`${files.folder}/run`, `${files.folder}/link-to-folder`);
      await Deno.link(files.hostSocket, `${files.work}/hard-link`);
      const nested = `${files.state}/rules`;
      await Deno.mkdir(nested);
      const table: readonly (readonly [string, string])[] = [
        [files.hostSocket, files.hostSocket],
        [`${files.folder}/run`, files.hostSocket],
        [files.folder, files.hostSocket],
        [`${files.work}/../run/./host.sock`, files.hostSocket],
        [link, files.hostSocket],
        [`${files.folder}/link-to-folder`, files.hostSocket],
        [`${files.work}/hard-link`, files.hostSocket],
        [nested, files.state],
        ["/", files.hostSocket],
        ["/run", "/run/docker.sock"],
        ["/var/run/docker.sock", "/var/run/docker.sock"],
        ["/run/containerd/containerd.sock", "/run/containerd"],
        ["/proc/1/root", "/proc"],
        [lab.socket, lab.socket],
      ];
      const before = await names();
      // A Docker that is not there: refusal must not have asked it (S008-SC-002, S008-EC-001).
      for (const [source, exposed] of table) {
        const clean = source.replace("/project/../run/./", "/run/");
        await assert.rejects(
          containers.create({ ...sleeper, volumes: [`${source}:/x`] }),
          isError(
            403,
            "mount.denied",
            `bind mount denied - "${clean}" exposes protected host path "${exposed}"`,
          ),
          source,
        );
      }
      await assert.rejects(
        containers.create({ ...sleeper, volumes: [`${files.folder}/none:/x`] }),
        isError(404, "mount.missing", "does not exist"),
      );
      assert.deepEqual(await names(), before);
      await Deno.remove(`${files.work}/hard-link`);
    },
  );

  await step("a volume that is a host folder in disguise is seen through", async () => {
    await lab.docker.createVolume({
      Name: "disguise",
      DriverOpts: { type: "none", o: "bind", device: `${files.folder}/run` },
    });
    await assert.rejects(
      containers.create({ ...sleeper, volumes: ["disguise:/x"] }),
      isError(403, "mount.denied", files.hostSocket),
    );
    const { name } = await containers.create({ ...sleeper, volumes: ["fresh:/data:ro"] });
    assert.deepEqual((await containers.inspect(name)).mounts, ["fresh:/data:ro"]);
  });

  await step("the path that was checked is the path that is mounted (S008-EC-012)", async () => {
    await Deno.symlink(files.work, `${files.folder}/alias`);
    const { name } = await containers.create({
      ...sleeper,
      volumes: [`${files.folder}/alias:/workspace:ro`],
    });
    assert.deepEqual((await containers.inspect(name)).mounts, [`${files.work}:/workspace:ro`]);
  });

  await step(
    "helpers that are missing or disguised are refused (S008-EC-015 to -017)",
    async () => {
      const helped = { ...sleeper, include_outcall_helper_mounts: true };
      const { folder } = files;
      await Deno.symlink(files.shim, `${folder}/shim-link`);
      await Deno.symlink(files.agentSocket, `${folder}/socket-link`);
      await Deno.writeTextFile(`${folder}/plain`, "", { mode: 0o644 });
      const cases: readonly (readonly [ContainerManager, string, string])[] = [
        [manager(`${folder}/no`), "helper.missing", `agent socket not found at "${folder}/no"`],
        [manager(`${folder}/plain`), "helper.invalid", "is not a Unix socket"],
        [manager(`${folder}/socket-link`), "helper.invalid", "is not a Unix socket"],
        [
          manager(files.agentSocket, `${folder}/no`),
          "helper.missing",
          `shim binary not found at "${folder}/no"`,
        ],
        [manager(files.agentSocket, `${folder}/plain`), "helper.invalid", "not an executable file"],
        [manager(files.agentSocket, `${folder}/shim-link`), "helper.invalid", "not an executable"],
      ];
      for (const [broken, code, text] of cases) {
        await assert.rejects(broken.create(helped), isError(409, code, text));
      }
      assert.deepEqual(await names(), []);
    },
  );

  await step("only a managed network will do (S008-FR-030, ADV-CONTAINER-07)", async () => {
    await lab.docker.createNetwork({ Name: "outcall-forged" });
    await assert.rejects(
      containers.create({ ...sleeper, network: "forged" }),
      isError(409, "network.forged", '"outcall-forged"'),
    );
    for (const network of ["nowhere", "bridge", "host", "none"]) {
      await assert.rejects(
        containers.create({ ...sleeper, network }),
        isError(404, "network.missing", `network "outcall-${network}" does not exist`),
      );
    }
    assert.deepEqual(await names(), []);
  });

  await step("rules on docker.* decide what is created, and it is recorded", async () => {
    const rules = judgedBy(
      { id: "no-home", action: "block", condition: 'docker.volumes.exists(v, v.startsWith("/"))' },
      { id: "sleepers", condition: 'agent.name == "dozer" && docker.command == ["sleep", "9"]' },
    );
    const judged = manager(files.agentSocket, files.shim, rules);
    const request = { image: IMAGE, name: "dozer-1", cmd: ["sleep", "9"] };
    await assert.rejects(
      judged.create({ ...request, volumes: [`${files.work}:/work`] }),
      isError(403, "container.blocked", 'rule "no-home" (/rules/test.yaml:'),
    );
    await assert.rejects(
      judged.create({ ...request, name: "other" }),
      isError(403, "container.blocked", `no rule allows a container of image "${IMAGE}"`),
    );
    assert.deepEqual(await names(), []);
    await judged.create(request);
    assert.deepEqual(await names(), ["/dozer-1"]);
    assert.deepEqual(
      rules.decisions.recent().map(({ layer, verdict, reason, rule, attempt }) =>
        [layer, verdict, reason, rule?.id, attempt.image].join(" ")
      ),
      [
        `container block rule no-home ${IMAGE}`,
        `container block default  ${IMAGE}`,
        `container allow rule sleepers ${IMAGE}`,
      ],
    );
  });

  await step("a container that rules take for another agent is warned about", async () => {
    assert.deepEqual((await containers.create({ ...sleeper, name: "db-agent-1" })).warnings, []);
    assert.deepEqual((await containers.create({ ...sleeper, name: "db-agent-2" })).warnings, []);
    const { warnings } = await containers.create({ ...sleeper, name: "db-agent" });
    assert.deepEqual(
      [...warnings].sort(),
      [1, 2].map((n) =>
        `container "db-agent-${n}" is the same agent to rules: agent.name == "db-agent"`
      ),
    );
    await lab.run("named", "outcall-default", { Labels: { "outcall.agent": "web" } });
    assert.deepEqual((await containers.create({ ...sleeper, name: "web-7" })).warnings, [
      'container "named" is the same agent to rules: agent.name == "web"',
    ]);
  });

  await step("an image must be here already (S008-EC-005)", async () => {
    await assert.rejects(
      containers.create({ image: "no/such:1" }),
      isError(404, "image.missing", 'image "no/such:1" not found locally — pull it first'),
    );
  });

  await step("a container that does not start is removed again (S008-AS-018, SC-015)", async () => {
    const volumes = async (): Promise<string[]> =>
      (await lab.docker.listVolumes()).Volumes.map(({ Name }) => Name).sort();
    const maker = lab.docker.getContainer(await lab.run("maker", "outcall-default"));
    await maker.commit({ repo: "lab/volume", tag: "1", changes: "VOLUME /data" });
    const before = await volumes();
    const broken = {
      image: "lab/volume:1",
      name: "broken",
      // Docker takes it; the runtime cannot make a folder inside a file.
      volumes: [`${files.work}:/etc/passwd/x`],
    };
    await assert.rejects(
      containers.create(broken),
      (error) => error instanceof OutcallError && error.message.includes("/etc/passwd"),
    );
    assert.deepEqual(await names(), ["/maker"]);
    assert.deepEqual(await volumes(), before);
    // The positive control: without that mount the same image brings its volume along.
    await containers.create({ ...broken, volumes: [], cmd: ["sleep", "1000"] });
    assert.equal((await volumes()).length, before.length + 1);
  });

  await step("a command that ends at once is no failure (S008-FR-011)", async () => {
    const { name } = await containers.create({ image: IMAGE, cmd: ["id"] });
    assert.equal((await containers.inspect(name)).name, name);
  });

  await step("a name in use is Docker's own error (S008-EC-013)", async () => {
    await containers.create({ ...sleeper, name: "twice" });
    await assert.rejects(
      containers.create({ ...sleeper, name: "twice" }),
      isError(409, "docker.refused", "already in use"),
    );
    assert.deepEqual(await names(), ["/twice"]);
  });

  await step(
    "list shows ours by label, whatever their names and states (S008-FR-014)",
    async () => {
      assert.deepEqual(await containers.list(), []);
      await lab.run("outcall-lookalike", "outcall-default");
      const one = await containers.create({ ...sleeper, name: "zeta", network: "staging" });
      const two = await containers.create({ ...sleeper, name: "alpha" });
      await containers.stop("alpha", 0);
      const [first, second, ...rest] = await containers.list();
      assert.deepEqual(rest, []);
      assert.match(first?.created_at ?? "", /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
      assert.deepEqual([{ ...first, created_at: "" }, { ...second, created_at: "" }], [
        {
          container_id: two.container_id,
          name: "alpha",
          image: IMAGE,
          state: "exited",
          network: "outcall-default",
          created_at: "",
        },
        {
          container_id: one.container_id,
          name: "zeta",
          image: IMAGE,
          state: "running",
          network: "outcall-staging",
          created_at: "",
        },
      ]);
    },
  );

  await step("inspect never shows a value of the environment (S008-FR-015, AS-007)", async () => {
    const { name } = await containers.create({ ...sleeper, env: ["TOKEN=hunter2=x", "EMPTY="] });
    const detail = await containers.inspect(name);
    assert.equal(detail.ip_address, "10.200.255.2");
    assert.equal(detail.state, "running");
    assert(detail.env.includes("TOKEN=<redacted>"));
    assert(detail.env.includes("EMPTY=<redacted>"));
    assert(detail.env.every((entry) => /^\w+=<redacted>$/.test(entry)), detail.env.join(" "));
    assert(!JSON.stringify(detail).includes("hunter2"));
    assert.deepEqual(await containers.inspect(detail.container_id.slice(0, 12)), detail);
  });

  await step(
    "stop and remove say what they did (S008-FR-034, EC-004, EC-007, EC-008)",
    async () => {
      await containers.create({ ...sleeper, name: "agent" });
      await assert.rejects(
        containers.remove("agent", false),
        isError(
          409,
          "container.running",
          'container "agent" is still running — stop it first or use force',
        ),
      );
      assert.deepEqual(await containers.stop("agent", 10), { name: "agent", stopped: true });
      assert.deepEqual(await containers.stop("agent", 10), { name: "agent", stopped: false });
      assert.deepEqual(await containers.remove("agent", false), { name: "agent", removed: true });
      assert.deepEqual(await containers.remove("agent", false), { name: "agent", removed: false });
      const gone = isError(404, "container.missing", 'container "agent" does not exist');
      await assert.rejects(containers.stop("agent", 10), gone);
      await assert.rejects(containers.inspect("agent"), gone);
      await containers.create({ ...sleeper, name: "agent" });
      assert.deepEqual(await containers.remove("agent", true), { name: "agent", removed: true });
      for (const timeout of [-1, 301, 1.5, NaN]) {
        await assert.rejects(
          containers.stop("agent", timeout),
          isError(400, "container.timeout", ""),
        );
      }
    },
  );

  await step(
    "containers that are not ours stay untouched (S008-AS-016, ADV-CONTAINER-10)",
    async () => {
      const id = await lab.run("foreign", "outcall-default");
      const refused = isError(403, "container.unmanaged", 'container "foreign" is not managed');
      await assert.rejects(containers.inspect("foreign"), refused);
      await assert.rejects(containers.stop("foreign", 0), refused);
      await assert.rejects(containers.remove("foreign", true), refused);
      assert.equal((await lab.docker.getContainer(id).inspect()).State.Running, true);
      // A few digits of an id are no name.
      const { container_id } = await containers.create({ ...sleeper, name: "mine" });
      await assert.rejects(
        containers.stop(container_id.slice(0, 6), 0),
        isError(404, "container.missing", ""),
      );
      for (const name of ["../networks", "a/b", "-f", ""]) {
        await assert.rejects(containers.inspect(name), isError(400, "container.name", ""));
      }
    },
  );

  await step("an image's own settings do not undo ours", async () => {
    await importImage(
      lab.machine.path("/run/docker.sock"),
      "lab/hostile:1",
      ["bash", "sleep"],
      {},
      {
        "managed-by": "somebody",
        "outcall.network": "bridge",
      },
    );
    const { name } = await containers.create({ image: "lab/hostile:1", cmd: ["sleep", "1000"] });
    assert.equal((await containers.inspect(name)).network, "outcall-default");
    assert.equal((await containers.list()).length, 1);
  });

  await step(
    "a pull reports its progress, and whether anything was new (S008-AS-008)",
    async () => {
      const registry = lab.machine.spawn([
        Deno.execPath(),
        ...["run", "--allow-net", new URL("./registry.ts", import.meta.url).pathname],
      ]);
      const line = await registry.line("stdout", (text) => text.startsWith("port "));
      // Port and tag must not be mistaken for each other (S008-AS-019).
      const image = `127.0.0.1:${line.slice("port ".length)}/lab/pulled:1`;
      const seen: PullProgress[] = [];
      assert.deepEqual(await containers.pull(image, (progress) => seen.push(progress)), {
        image,
        pulled: true,
      });
      const texts = seen.map(({ text }) => text);
      assert(texts.some((text) => text.startsWith("1: Pulling from lab/pulled")), `${texts}`);
      assert(texts.some((text) => /^[0-9a-f]{12}: Pull complete$/.test(text)), `${texts}`);
      const last = seen.at(-1);
      assert.deepEqual([last?.layers, last?.layers_done], [2, 2]);
      assert(last !== undefined && last.bytes > 1_000_000 && last.bytes === last.bytes_total);
      assert(seen.some(({ bytes, bytes_total }) => bytes > 0 && bytes < bytes_total));
      assert((await lab.docker.getImage(image).inspect()).Id.startsWith("sha256:"));
      assert.deepEqual(await containers.pull(image, () => {}), { image, pulled: false });
      await assert.rejects(
        containers.pull(image.replace(/1$/, "2"), () => {}),
        isError(500, "image.pull_failed", '/lab/pulled:2": manifest unknown'),
      );
      await registry.tell("end");
      await registry.ended;
    },
  );

  await step("a pull that fails says why (S008-EC-006)", async () => {
    await assert.rejects(
      // Nothing listens there, and the lab has no way out anyway.
      containers.pull("127.0.0.1:1/no/such:1", () => {}),
      (error) =>
        error instanceof OutcallError && error.code === "image.pull_failed" &&
        error.message.startsWith('failed to pull image "127.0.0.1:1/no/such:1": '),
    );
    await assert.rejects(containers.pull("a b", () => {}), isError(400, "image.invalid", ""));
  });
});
