/** Docker that is not there, hangs, or refuses: told truly, in bounded time, and nothing is opened. */
import assert from "node:assert/strict";
import { ContainerManager } from "../../lib/docker/containers.ts";
import { Docker } from "../../lib/docker/docker.ts";
import { Engine, type EngineSignal } from "../../lib/docker/engine.ts";
import { AgentIndex } from "../../lib/docker/identity.ts";
import { type NetworkHooks, NetworkManager } from "../../lib/docker/networks.ts";
import { OutcallError } from "../../lib/errors.ts";
import { block, judgedBy, NO_NAMESPACE_AGENTS } from "./lab.ts";

const SEGMENT = {
  network: "outcall-a",
  bridge: "outcall1",
  subnet: "10.200.0.0/24",
  gateway: "10.200.0.1",
};

/** Whether Docker was said to be away, for `reason`. */
function isAway(reason: string): (error: unknown) => boolean {
  return (error) => {
    assert(error instanceof OutcallError, String(error));
    assert.deepEqual([error.status, error.code], [503, "docker.unavailable"], error.message);
    assert(error.message.includes(reason), error.message);
    assert(error.hint !== undefined);
    return true;
  };
}

/** A Unix socket that takes connections and answers each with `reply`, or never. */
class FakeSocket implements AsyncDisposable {
  readonly path = `${Deno.makeTempDirSync({ prefix: "outcall-away-" })}/docker.sock`;
  readonly #listener = Deno.listen({ transport: "unix", path: this.path });
  readonly #connections: Deno.Conn[] = [];
  readonly #done: Promise<void>;

  constructor(readonly reply?: string) {
    this.#done = this.#serve();
  }

  get connections(): number {
    return this.#connections.length;
  }

  async #serve(): Promise<void> {
    for await (const connection of this.#listener) {
      this.#connections.push(connection);
      if (this.reply === undefined) continue;
      await connection.read(new Uint8Array(65_536));
      await connection.write(new TextEncoder().encode(this.reply)).catch(() => {});
      connection.close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    await this.#done;
    for (const connection of this.#connections) {
      try {
        connection.close();
      } catch {
        // Answered and closed already.
      }
    }
    await Deno.remove(this.path.slice(0, this.path.lastIndexOf("/")), { recursive: true });
  }
}

/** Hooks that must not be reached. */
const noHooks: NetworkHooks = {
  nextBridge: () => assert.fail("asked for a bridge"),
  ownsBridge: () => assert.fail("asked about a bridge"),
  assertUp: () => {},
  cover: () => assert.fail("covered"),
  attach: () => assert.fail("attached"),
  detach: () => assert.fail("detached"),
};

function networksAt(path: string): NetworkManager {
  return new NetworkManager({
    namespaceAgents: NO_NAMESPACE_AGENTS.on,
    engine: new Engine(path, 200),
    hooks: noHooks,
    subnetBlock: block("10.200.0.0/16"),
    hostRoutes: () => [],
  });
}

function containersAt(path: string): ContainerManager {
  return new ContainerManager({
    engine: new Engine(path, 200),
    networks: networksAt(path),
    ...judgedBy(),
    proxyPort: 8080,
    agentSocketPath: "/run/outcall/agent.sock",
    shimPath: "/usr/local/bin/outcall-agent",
    protectedPaths: ["/run/outcall/host.sock"],
  });
}

function dockerAt(path: string): Docker {
  return new Docker({
    namespaceAgents: NO_NAMESPACE_AGENTS,
    pins: () => [],
    socketPath: path,
    subnetBlock: block("10.200.0.0/16"),
    hooks: noHooks,
    hostRoutes: () => [],
    segments: () => [SEGMENT],
    containers: {
      ...judgedBy(),
      proxyPort: 8080,
      agentSocketPath: "/run/outcall/agent.sock",
      shimPath: "/usr/local/bin/outcall-agent",
      protectedPaths: ["/run/outcall/host.sock"],
    },
  });
}

const MISSING = "/nonexistent/docker.sock";

Deno.test("without Docker every call says so (S002-EC-003, S002-AS-016, S008-EC-003, AS-010)", async () => {
  const networks = networksAt(MISSING);
  const containers = containersAt(MISSING);
  const away = isAway(`Docker is unavailable at ${MISSING}: no such file or directory`);
  await assert.rejects(new Engine(MISSING).ping(), away);
  await assert.rejects(networks.create({ name: "a" }), away);
  await assert.rejects(networks.status(), away);
  await assert.rejects(networks.list(), away);
  await assert.rejects(networks.destroy("a"), away);
  await assert.rejects(containers.create({ image: "a" }), away);
  await assert.rejects(containers.list(), away);
  await assert.rejects(containers.inspect("agent"), away);
  await assert.rejects(containers.stop("agent", 1), away);
  await assert.rejects(containers.remove("agent", true), away);
  await assert.rejects(containers.pull("a", () => {}), away);
});

Deno.test("a faulty request is refused before Docker is asked (S008-SC-002, S002-FR-015)", async () => {
  await using socket = new FakeSocket();
  const code = (expected: string) => (error: unknown): boolean =>
    error instanceof OutcallError && error.code === expected;
  const networks = networksAt(socket.path);
  await assert.rejects(networks.create({ name: "a b" }), code("network.name"));
  await assert.rejects(networks.create({ subnet: "8.8.8.0/24" }), code("network.subnet"));
  const containers = containersAt(socket.path);
  for (
    const volume of ["/:/x", "/run/outcall:/x", "/var/run/docker.sock:/x", `${socket.path}:/x`]
  ) {
    await assert.rejects(
      containers.create({ image: "a", volumes: [volume] }),
      code("mount.denied"),
    );
  }
  await assert.rejects(
    containers.create({ image: "a", volumes: ["data:/etc"] }),
    code("mount.protected"),
  );
  await assert.rejects(containers.create({ image: "a", user: "0:0" }), code("container.user"));
  assert.equal(socket.connections, 0);
});

Deno.test("an engine that never answers its ping is away after 3 s (S008-AS-017, EC-020)", async () => {
  await using socket = new FakeSocket();
  await assert.rejects(new Engine(socket.path).ping(), isAway("no answer within 3 s"));
});

Deno.test("a call that hangs ends in time, and changes nothing", async () => {
  await using socket = new FakeSocket();
  await assert.rejects(networksAt(socket.path).create({}), isAway("no answer within 0.2 s"));
  await assert.rejects(containersAt(socket.path).list(), isAway("no answer within 0.2 s"));
});

Deno.test("bytes that are not Docker's are an error, not a crash", async () => {
  const replies = [
    "SSH-2.0-OpenSSH_9.2\r\n",
    "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
    "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\n\r\n{}",
    "",
  ];
  for (const reply of replies) {
    await using socket = new FakeSocket(reply);
    await assert.rejects(
      new Engine(socket.path, 500).networks(),
      (error) => error instanceof OutcallError && error.code.startsWith("docker."),
      reply,
    );
  }
});

Deno.test("watch() goes on saying that Docker is away until it is told to end", async () => {
  const end = new AbortController();
  const signals: EngineSignal[] = [];
  for await (const signal of new Engine(MISSING).watch(end.signal)) {
    signals.push(signal);
    if (signals.length === 3) end.abort();
  }
  assert.deepEqual(signals.map(({ kind }) => kind), Array(3).fill("disconnected"));
});

Deno.test("start-up goes on without Docker, and health says why (S002-FR-023, S008-FR-036)", async () => {
  const docker = dockerAt(MISSING);
  await docker.start();
  assert.deepEqual(docker.health(), {
    name: "docker",
    state: "degraded",
    detail: `Docker is unavailable at ${MISSING}: no such file or directory`,
  });
  assert.deepEqual(await docker.agents.identify("10.200.0.2"), {
    name: "",
    address: "10.200.0.2",
    network: "outcall-a",
  });
  await docker.stop();
});

Deno.test("an engine that hangs at start-up is degraded, not waited for (S008-SC-014)", async () => {
  await using socket = new FakeSocket();
  const docker = dockerAt(socket.path);
  await docker.start();
  assert.equal(docker.health().state, "degraded");
  assert.match(docker.health().detail, /no answer within 3 s/);
  await docker.stop();
});

Deno.test("without Docker an address inside is an agent without a name (D5, S013-EC-009)", async () => {
  const agents = new AgentIndex({
    engine: new Engine(MISSING),
    segments: () => [SEGMENT],
    namespaceAgent: NO_NAMESPACE_AGENTS.at,
    pins: () => [],
  });
  const nameless = { name: "", address: "10.200.0.9", network: "outcall-a" };
  assert.deepEqual(await agents.identify("10.200.0.9"), nameless);
  // The failure is remembered, so that agents cannot make us ask over and over.
  assert.deepEqual(agents.identify("10.200.0.9"), nameless);
});

Deno.test("an address outside every managed network is nobody (D5, ADV-DNS-02)", () => {
  const agents = new AgentIndex({
    engine: new Engine(MISSING),
    segments: () => [SEGMENT],
    namespaceAgent: NO_NAMESPACE_AGENTS.at,
    pins: () => [],
  });
  for (
    const address of ["10.200.1.2", "127.0.0.1", "8.8.8.8", "::1", "", "10.200.0.2 ", "010.200.0.2"]
  ) {
    assert.equal(agents.identify(address), null, address);
  }
});

Deno.test("questions at the same time share a look-up, and its bound (S013-FR-006)", async () => {
  await using socket = new FakeSocket();
  const agents = new AgentIndex({
    engine: new Engine(socket.path, 300),
    segments: () => [SEGMENT],
    namespaceAgent: NO_NAMESPACE_AGENTS.at,
    pins: () => [],
  });
  const addresses = Array.from({ length: 100 }, (_, i) => `10.200.0.${i + 2}`);
  const answers = await Promise.all(addresses.map((address) => agents.identify(address)));
  assert(answers.every((agent) => agent?.name === ""));
  // One look-up for the first, one for everyone else; each asks for the network and the containers.
  assert.equal(socket.connections, 4);
});

const LOCAL = { name: "a", address: "10.200.0.9", network: "outcall-a" };

Deno.test("an agent without Docker is known by its cable, whether Docker answers or not", () => {
  const agents = new AgentIndex({
    engine: new Engine(MISSING),
    segments: () => [SEGMENT],
    namespaceAgent: (address) => address === LOCAL.address ? LOCAL : undefined,
    pins: () => [],
  });
  assert.deepEqual(agents.identify(LOCAL.address), LOCAL);
});

Deno.test("a network adopted without Docker costs no agent its name when Docker is back, whatever other networks are called (D5)", async () => {
  const folder = await Deno.makeTempDir({ prefix: "outcall-away-" });
  const path = `${folder}/docker.sock`;
  const mac = "02:42:0a:c8:00:02";
  const endpoint = { Name: "worker", MacAddress: mac, IPv4Address: "10.200.0.2/24" };
  await using _docker = Deno.serve({ path, onListen: () => {} }, ({ url }) => {
    const { pathname } = new URL(url);
    if (pathname.endsWith("/containers/json")) {
      return Response.json([{ Id: "c1", Names: ["/worker"], Labels: {}, ImageID: "i1" }]);
    }
    if (pathname.endsWith("/networks/outcall-a")) {
      const Options = { "com.docker.network.bridge.name": SEGMENT.bridge };
      return Response.json({ Name: "outcall-a", Options, Containers: { c1: endpoint } });
    }
    // Somebody's own network, which happens to be called like our bridge.
    return pathname.endsWith(`/networks/${SEGMENT.bridge}`)
      ? Response.json({ Name: SEGMENT.bridge, Options: {}, Containers: {} })
      : Response.json({ message: "no such network" }, { status: 404 });
  });
  // By its bridge's name at first, as when the daemon has started without Docker.
  let segment = { ...SEGMENT, network: SEGMENT.bridge };
  const agents = new AgentIndex({
    engine: new Engine(path),
    segments: () => [segment],
    namespaceAgent: NO_NAMESPACE_AGENTS.at,
    pins: () => [{ index: 7, mac, address: "10.200.0.2" }],
  });
  agents.startFollowing();
  assert.equal((await agents.identify("10.200.0.2"))?.name, "");
  segment = SEGMENT;
  assert.equal((await agents.identify("10.200.0.2"))?.name, "worker");
  await Deno.remove(folder, { recursive: true });
});
