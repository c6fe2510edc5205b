/**
 * The boundary around agent containers (S015, ADV-CONTAINER): what no request can ask for, what no
 * program inside can change, and who is refused by the gateway's services.
 */
import assert from "node:assert/strict";
import type { Container } from "../lab/container.ts";
import { UPSTREAM_RESOLVER } from "../lab/internet/world.ts";
import { HOST_ADDRESS } from "../lab/lab.ts";
import { positiveControl } from "../lab/probe.ts";
import { labTest } from "../lab/requirements.ts";
import { nothing } from "../lab/witness.ts";
import { hostile, HostileLab, IMAGE, MANAGED, ORDINARY, Sniffer, TOOLS } from "./hostile.ts";

/** As broad as a rule can be, but for private addresses. */
const RULES = `
version: "1"
rules:
  - id: everything
    action: allow
    condition: "true"
`;

const CURL = ["curl", "-s", "-m", "3", "-o", "/dev/null", "-w", "%{http_code}"];

labTest("the boundary around agent containers", { tools: TOOLS }, async (t) => {
  await using stage = await HostileLab.create(RULES);
  const { lab, engine } = stage;
  const rights = ["--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW"];
  const root = await stage.run("root", MANAGED, ...rights);
  const agent = await stage.create("agent");
  const stranger = await stage.run("stranger", ORDINARY);

  const containers = async (): Promise<string[]> =>
    (await engine.must(["ps", "-aq"])).trim().split("\n");
  /** A step that makes as many containers as this, and no more. */
  const making = async (count: number, name: string, run: () => Promise<void>): Promise<void> => {
    await t.step(name, async () => {
      const before = (await containers()).length;
      await run();
      assert.equal((await containers()).length, before + count);
    });
  };
  /** What the API answers to a request for a container. */
  const refused = async (
    request: Readonly<Record<string, unknown>>,
    status: number,
    code: string,
  ): Promise<void> => {
    const answer = await lab.api("POST", "/api/v1/container/create", {
      image: IMAGE,
      network: "agent-net",
      cmd: ["sleep", "1000"],
      ...request,
    });
    const what = JSON.stringify(request);
    assert.deepEqual([answer.status, Object(answer.body).code], [status, code], what);
  };

  await making(1, "positive control: a request that asks for nothing odd is served", async () => {
    const answer = await lab.api("POST", "/api/v1/container/create", {
      image: IMAGE,
      network: "agent-net",
      cmd: ["sleep", "1000"],
      volumes: ["data:/data", "/usr/share:/share:ro"],
      env: ["A=1"],
      user: "501:20",
      memory_limit: 6_291_456,
      cpu_shares: 2,
    });
    assert.equal(answer.status, 200, JSON.stringify(answer.body));
  });

  await making(1, "every flag of container create does what it says (S008-AS-012)", async () => {
    await lab.host.must([
      "bash",
      "-c",
      "mkdir /var/tmp/mounted && echo hello > /var/tmp/mounted/hello",
    ]);
    const { code, stdout, stderr } = await lab.cli(
      ...["container", "create", "--image", IMAGE, "--network", "agent-net", "--name", "flags"],
      ...["--memory", "256m", "--cpu-shares", "512", "--env", "A=1", "-e", "B=x y=z"],
      ...["--volume", "/var/tmp/mounted:/work:ro", "-v", "scratch:/scratch", "--workdir", "/work"],
      ...[
        "--user",
        "1000:1001",
        "--tty",
        "--interactive",
        "--",
        "bash",
        "-c",
        "sleep 1000",
        "zero",
      ],
    );
    assert.deepEqual([code, stdout, stderr], [0, 'Container "flags" created and started.\n', ""]);
    const { Config, HostConfig } = JSON.parse(await engine.must(["inspect", "flags"]))[0];
    assert.deepEqual(
      [HostConfig.Memory, HostConfig.CpuShares, Config.Tty, Config.OpenStdin, Config.Cmd],
      [268_435_456, 512, true, true, ["bash", "-c", "sleep 1000", "zero"]],
    );
    const inside = 'id -u; id -g; pwd; cat hello; echo "$A $B"; echo x > hello';
    const seen = await engine.docker(["exec", "flags", "bash", "-c", inside]);
    assert.equal(seen.stdout, "1000\n1001\n/work\nhello\n1 x y=z\n");
    assert.match(seen.stderr, /Read-only file system/);
  });

  await making(
    0,
    "ADV-CONTAINER-01, S015-AS-006: no mount of a control socket or its folder",
    async () => {
      await lab.host.must(["ln", "-s", "/run/docker.sock", "/var/tmp/innocent"]);
      await lab.host.must(["ln", "-s", "/run", "/var/tmp/folder"]);
      for (
        const source of [
          ...[
            "/run/docker.sock",
            "/var/run/docker.sock",
            "/run/containerd",
            "/run",
            "/var/run",
            "/",
          ],
          ...["/run/outcall", "/run/outcall/host.sock", "/run/outcall/agent.sock.d/../host.sock"],
          ...["/etc/outcall/rules.d", "/etc", "/var/lib/outcall", "/proc", "/proc/1/root"],
          ...["/var/tmp/innocent", "/var/tmp/folder", "/var/tmp/folder/docker.sock"],
        ]
      ) await refused({ volumes: [`${source}:/x`] }, 403, "mount.denied");
      for (
        const volume of ["run:relative", "../run:/x", "./run:/x", "/usr:/x:ro:z", "/usr:/x:shared"]
      ) {
        await refused({ volumes: [volume] }, 400, "mount.invalid");
      }
    },
  );

  await making(0, "ADV-CONTAINER-02, S015-AS-011: none over socket, shim or resolver", async () => {
    for (
      const destination of [
        ...["/", "/run", "/run/outcall", "/run/outcall/agent.sock", "/var/run/outcall", "/etc"],
        ...["/etc/resolv.conf", "/usr/local/bin", "/usr/local/bin/outcall-agent", "/usr"],
        ...["/tmp/../run/outcall", "//run//outcall/", "/usr/local/bin/outcall"],
      ]
    ) {
      await refused({ volumes: [`/usr/share:${destination}`] }, 403, "mount.protected");
      await refused({ volumes: [`data:${destination}`] }, 403, "mount.protected");
    }
  });

  await making(
    1,
    "ADV-CONTAINER-03: proxy variables are the daemon's, in every spelling",
    async () => {
      const { code, stderr } = await lab.cli(
        ...[
          "container",
          "create",
          "--image",
          IMAGE,
          "--network",
          "agent-net",
          "--name",
          "stubborn",
        ],
        ...[
          "-e",
          "HTTPS_PROXY=http://1.1.1.1",
          "-e",
          "http_proxy=http://1.1.1.1",
          "-e",
          "NO_PROXY=*",
        ],
        ...["-e", "No_Proxy=*", "-e", "ALL_PROXY=socks5://1.1.1.1", "--", "sleep", "1000"],
      );
      assert.equal(code, 0, stderr);
      const env = await engine.must(["exec", "stubborn", "env"]);
      assert.doesNotMatch(env, /1\.1\.1\.1|=\*/);
      assert.equal(env.match(/^https?_proxy=http:\/\/10\.200\.0\.1:8080$/gim)?.length, 4);
      for (const list of [["A=1", "A=2"], ["1A=x"], ["A B=x"], ["=x"], ["A"], ["A=\0"]]) {
        await refused({ env: list }, 400, "container.env");
      }
    },
  );

  await making(0, "ADV-CONTAINER-04 05 06 09: users, limits, names and images", async () => {
    for (const user of ["0:0", "root", "501:0", "0:20", "+501:20", "501", "1:2:3", "", " 1:1"]) {
      await refused({ user }, 400, "container.user");
    }
    await refused({ memory_limit: 6_291_455 }, 400, "container.memory_limit");
    await refused({ memory_limit: -1 }, 400, "container.memory_limit");
    for (const cpu_shares of [0, 1, 262_145]) {
      await refused({ cpu_shares }, 400, "container.cpu_shares");
    }
    for (const name of ["a/b", "-rm", "../x", "a".repeat(129), "", "a b", "a\nb"]) {
      await refused({ name }, 400, "container.name");
    }
    for (const image of ["--privileged", "a b", "a:", "a\n", "", "A", "a@sha256:0", "-v/:/x"]) {
      await refused({ image }, 400, "image.invalid");
    }
  });

  await making(0, "ADV-CONTAINER-07, S015-AS-007: only a managed network will do", async () => {
    await engine.must(["network", "create", "outcall-forged"]);
    await engine.must([
      ...["network", "create", "--label", "managed-by=outcalld", "outcall-labelled"],
      ...["-o", "com.docker.network.bridge.name=br-labelled"],
    ]);
    for (const network of ["forged", "labelled", "outcall-forged"]) {
      await refused({ network }, 409, "network.forged");
    }
    for (const network of ["bridge", "host", "none", ORDINARY, "nowhere"]) {
      await refused({ network }, 404, "network.missing");
    }
    await refused({ network: "container:root" }, 400, "network.name");
  });

  await making(0, "ADV-CONTAINER-08: what weakens a container has no field", async () => {
    for (const field of ["privileged", "cap_add", "pid_mode", "ports", "devices", "network_mode"]) {
      await refused({ [field]: true }, 422, "request.invalid");
    }
    const inspected = JSON.parse(await engine.must(["inspect", "agent"]))[0].HostConfig;
    assert.deepEqual(
      [inspected.Privileged, inspected.PidMode, inspected.CapAdd, inspected.CapDrop],
      [false, "", null, ["ALL"]],
    );
  });

  await making(0, "ADV-CONTAINER-10, S015-AS-012: foreign containers stay untouched", async () => {
    for (
      const args of [["inspect"], ["stop", "--timeout", "0"], ["remove", "--force"]] as const
    ) {
      const { code, stdout, stderr } = await lab.cli("container", ...args, "--name", "root");
      assert.deepEqual([code, stdout], [1, ""]);
      assert.match(stderr, /^error: container "root" is not managed by outcall\n/);
    }
    assert.equal((await root.run(["id", "-u"])).stdout, "0\n");
  });

  /** Whether a TCP connection of `from` to the internet arrives. */
  const arrives = async (from: Container): Promise<boolean> => {
    const mark = await lab.witness.mark();
    await from.run(["nc", "-z", "-w", "1", "1.1.1.1", "443"]);
    return !nothing(await lab.witness.since(mark, { to: "1.1.1.1", from: HOST_ADDRESS }));
  };

  await t.step("T-5, S015-AS-001 to 003: firewall and routes inside change nothing", async () => {
    await positiveControl(lab, ["nc", "-z", "-w", "1", "1.1.1.1", "443"], { to: "1.1.1.1" });
    await root.must(["iptables", "-I", "OUTPUT", "-d", "1.1.1.1", "-j", "ACCEPT"]);
    await root.must(["iptables", "-F"]);
    await root.must(["iptables", "-P", "OUTPUT", "ACCEPT"]);
    await root.must(["nft", "flush", "ruleset"]);
    const rule = ["nft", "add", "rule", "inet", "outcall", "forward", "accept"];
    assert.match((await root.run(rule)).stderr, /No such file or directory/);
    assert.match((await agent.run(rule)).stderr, /Operation not permitted/);
    assert.equal(await arrives(root), false);
    await root.must([
      "ip",
      "route",
      "replace",
      "1.1.1.1",
      "via",
      "10.200.0.1",
      "src",
      await root.address(MANAGED),
    ]);
    assert.equal(await arrives(root), false);
    assert.equal(await arrives(agent), false);
    assert.equal(await arrives(stranger), true, "other containers go their way");
  });

  await t.step("S015-AS-006: no socket, file or process of the host inside", async () => {
    const look = [
      "ls /run/docker.sock /var/run/docker.sock /run/containerd /run/outcall/host.sock /etc/outcall",
      "ls -d /proc/[0-9]* | wc -l",
      "cat /proc/1/comm",
      "ls /dev",
    ];
    const [sockets, processes, first, devices] = await Promise.all(
      look.map((script) => agent.run(["bash", "-c", script])),
    );
    assert.equal(sockets?.stdout, "");
    assert.ok(Number(processes?.stdout) < 10);
    assert.match(first?.stdout ?? "", /^(docker-init|tini)\n$/);
    assert.doesNotMatch(devices?.stdout ?? "", /mem|sd|vd|kvm/);
  });

  await t.step("S015-AS-008: no hook of br_netfilter is needed", async () => {
    const hooks = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    await lab.host.must(["bash", "-c", `echo 0 > ${hooks}; test "$(cat ${hooks})" = 0`]);
    const sniffer = await Sniffer.start(agent);
    const address = await root.address(MANAGED);
    assert.equal(await arrives(root), false);
    await root.run(hostile("everything", await agent.address(MANAGED)));
    await root.run(hostile("frames", "own", "ff:ff:ff:ff:ff:ff", "88b5"));
    await lab.host.must(["ping", "-c", "1", await agent.address(MANAGED)]);
    await sniffer.frame(0, "10.200.0.1");
    assert.deepEqual(sniffer.frames(0, address), []);
    assert.deepEqual(sniffer.frames(0, await root.mac(MANAGED)), []);
    await lab.host.must(["bash", "-c", `echo 1 > ${hooks}`]);
  });

  await t.step("S015-AS-009: who is no agent is refused by DNS filter and proxy", async () => {
    const proxied = [...CURL, "-x", "http://10.200.0.1:8080", "https://api.openai.com/"];
    const ask = ["dig", "+time=1", "+tries=1", "+short", "api.openai.com", "@10.200.0.1"];
    assert.equal((await agent.run(proxied)).stdout, "401", "positive control");
    assert.match((await agent.run(ask)).stdout, /^\d/m);
    const mark = await lab.witness.mark();
    for (const from of [stranger, lab.unfiltered]) {
      assert.equal((await from.run([...proxied, "-m", "1"])).stdout, "000");
      assert.doesNotMatch((await from.run(ask)).stdout, /^\d/m);
    }
    assert.ok(nothing(await lab.witness.since(mark, { to: UPSTREAM_RESOLVER })));
  });

  await t.step(
    "S015-AS-010, T-3: names that lead inside are not resolved, nor dialled",
    async () => {
      for (
        const host of ["inside.attacker.net", "metadata.attacker.net", "loopback.attacker.net"]
      ) {
        const dig = await agent.run(["dig", "+time=2", "+tries=1", host, "@10.200.0.1"]);
        assert.match(dig.stdout, /status: SERVFAIL/);
        const before = await lab.witness.mark();
        for (const url of [`http://${host}/`, `https://${host}/`]) {
          assert.notEqual(
            (await agent.run([...CURL, "-x", "http://10.200.0.1:8080", url])).stdout,
            "200",
          );
        }
        const { packets } = await lab.witness.since(before, { protocol: "tcp" });
        assert.deepEqual(packets, []);
      }
    },
  );
});
