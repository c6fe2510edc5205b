/** What is decided about names, addresses, images, mounts and requests before Docker is asked. */
import assert from "node:assert/strict";
import * as fc from "fast-check";
import { OutcallError } from "../../lib/errors.ts";
import type { EngineNetwork } from "../../lib/docker/engine.ts";
import { resolverOnHost, waysPast } from "../../lib/docker/bypass.ts";
import { engineSocket } from "../../lib/docker/engine.ts";
import { claimsOf, ownerOf } from "../../lib/docker/identity.ts";
import { parse } from "../../lib/docker/image.ts";
import { managedSegment, networkName } from "../../lib/docker/managed.ts";
import { clean, exposes, overlaps, parseMount } from "../../lib/docker/mounts.ts";
import { agentName, containerName } from "../../lib/docker/names.ts";
import { checkRequest, containerSpec, proxyVariables } from "../../lib/docker/request.ts";
import { allocate, checkAddresses, planAddresses, routeClaims } from "../../lib/docker/subnets.ts";
import { block } from "./lab.ts";

/** Whether `error` is the product's with this code and, when given, text. */
function isError(code: string, text = ""): (error: unknown) => boolean {
  return (error) =>
    error instanceof OutcallError && error.code === code && error.message.includes(text);
}

const SUFFIX_CHARACTERS = "abcXYZ019-_";
const suffix = fc.string({
  unit: fc.constantFrom(...SUFFIX_CHARACTERS),
  minLength: 1,
  maxLength: 64,
});

Deno.test("engineSocket() takes a Unix socket from DOCKER_HOST, and nothing else", () => {
  assert.equal(engineSocket(undefined), "/var/run/docker.sock");
  assert.equal(engineSocket("unix:///run/user/1/docker.sock"), "/run/user/1/docker.sock");
  assert.equal(engineSocket("tcp://10.0.0.1:2375"), "/var/run/docker.sock");
});

Deno.test("networkName() puts the prefix before every valid suffix (S002-FR-009, FR-011)", () => {
  assert.equal(networkName(undefined), "outcall-default");
  fc.assert(fc.property(suffix, (name) => networkName(name) === `outcall-${name}`));
});

Deno.test("networkName() refuses anything else (S002-EC-014)", () => {
  const refused = ["", "a".repeat(65), "a b", "a/b", "ä", "a.b", "a\n", "../a"];
  for (const name of refused) assert.throws(() => networkName(name), isError("network.name"), name);
  fc.assert(fc.property(fc.string(), (name) => {
    fc.pre(!/^[A-Za-z0-9_-]{1,64}$/.test(name));
    assert.throws(() => networkName(name), isError("network.name"));
  }));
});

const genuine: EngineNetwork = {
  Name: "outcall-a",
  Id: "1",
  Created: "",
  Scope: "local",
  Driver: "bridge",
  EnableIPv6: false,
  Internal: false,
  Attachable: false,
  Ingress: false,
  ConfigOnly: false,
  IPAM: { Driver: "default", Config: [{ Subnet: "10.200.0.0/24", Gateway: "10.200.0.1" }] },
  Options: { "com.docker.network.bridge.name": "outcall1" },
  Labels: { "managed-by": "outcalld" },
};

Deno.test("managedSegment() takes a network for ours only if everything fits (S002-FR-018)", () => {
  const owns = (bridge: string): boolean => bridge.startsWith("outcall");
  assert.deepEqual(managedSegment(genuine, owns), {
    network: "outcall-a",
    bridge: "outcall1",
    subnet: "10.200.0.0/24",
    gateway: "10.200.0.1",
  });
  const config = (Subnet: string, Gateway: string): Partial<EngineNetwork> => ({
    IPAM: { Driver: "default", Config: [{ Subnet, Gateway }] },
  });
  const forgeries: readonly Partial<EngineNetwork>[] = [
    { Name: "agents" },
    { Name: "outcall-" },
    { Name: "outcall-a b" },
    { Driver: "macvlan" },
    { Labels: {} },
    { Labels: { "managed-by": "someone" } },
    { Options: {} },
    { Options: { "com.docker.network.bridge.name": "docker0" } },
    { EnableIPv6: true },
    { IPAM: { Driver: "default", Config: [] } },
    config("fd00::/64", "fd00::1"),
    config("10.200.0.0/24", "10.201.0.1"),
    config("10.200.0.0/24", ""),
    {
      IPAM: {
        Driver: "default",
        Config: [{ Subnet: "10.200.0.0/24", Gateway: "10.200.0.1" }, { Subnet: "10.201.0.0/24" }],
      },
    },
  ];
  for (const forgery of forgeries) {
    assert.equal(typeof managedSegment({ ...genuine, ...forgery }, owns), "string");
  }
});

/** Blocks from /18 to /26 inside 10.200.0.0/16. */
const smallBlock = fc.tuple(fc.nat(65_535), fc.integer({ min: 18, max: 26 })).map(
  ([host, prefix]) => {
    const size = 2 ** (32 - prefix);
    const start = host - host % size;
    return block(`10.200.${start >> 8}.${start & 255}/${prefix}`);
  },
);

Deno.test("allocate() gives the first /24 nobody has, from either end (S002-FR-012)", () => {
  const whole = block("10.200.0.0/16");
  fc.assert(
    fc.property(fc.array(smallBlock, { maxLength: 40 }), fc.boolean(), (blocks, fromTop) => {
      const claims = blocks.map((taken) => ({ block: taken, owner: "somebody" }));
      const free = [...whole.subnets(24)].filter((slot) =>
        blocks.every((taken) => !taken.overlaps(slot))
      );
      const expected = fromTop ? free.at(-1) : free[0];
      const got = allocate(whole, claims, fromTop ? "top" : "bottom");
      assert.equal(got?.toString(), expected?.toString());
    }),
  );
});

Deno.test("a block holds as many networks as it has /24s, then says so (S002-FR-014)", () => {
  const whole = block("10.201.0.0/16");
  const claims = [...whole.subnets(24)].map((taken) => ({ block: taken, owner: "us" }));
  assert.equal(claims.length, 256);
  assert.throws(
    () => planAddresses({}, whole, claims, "bottom"),
    isError("network.exhausted", "no available subnets in 10.201.0.0/16"),
  );
  const plan = planAddresses({}, whole, claims.slice(0, -1), "bottom");
  assert.deepEqual([plan.subnet.toString(), plan.gateway.text], [
    "10.201.255.0/24",
    "10.201.255.1",
  ]);
});

Deno.test("a subnet that contains or lies in another is refused (S002-EC-015)", () => {
  const claims = [{ block: block("10.200.8.0/23"), owner: 'network "x"' }];
  for (const subnet of ["10.200.9.0/24", "10.200.8.0/23", "10.200.0.0/16", "10.200.9.128/30"]) {
    assert.throws(
      () => planAddresses({ subnet }, block("10.200.0.0/16"), claims, "bottom"),
      isError("network.overlap", `subnet ${subnet} overlaps network "x" (10.200.8.0/23)`),
    );
  }
});

Deno.test("explicit addresses must be canonical, private and usable (S002-FR-015)", () => {
  const good = [
    { subnet: "10.0.0.0/8" },
    { subnet: "172.16.5.0/30", gateway: "172.16.5.2" },
    { subnet: "192.168.7.0/24", gateway: "192.168.7.254" },
    {},
  ];
  for (const request of good) checkAddresses(request);
  const subnets = [
    ...["10.200.0.1/24", "10.200.0.0", "8.8.8.0/24", "10.0.0.0/7", "172.0.0.0/8", "172.32.0.0/16"],
    ...["192.168.0.0/15", "10.0.0.0/31", "10.0.0.0/32", "fd00::/64", "", "x/24", "10.0.0.0/24 "],
  ];
  for (const subnet of subnets) {
    assert.throws(() => checkAddresses({ subnet }), isError("network.subnet"), subnet);
  }
  const gateways = ["10.0.1.0", "10.0.1.255", "10.0.2.1", "010.0.1.1", "fd00::1", "", "10.0.1"];
  for (const gateway of gateways) {
    assert.throws(
      () => checkAddresses({ subnet: "10.0.1.0/24", gateway }),
      isError("network.gateway"),
      gateway,
    );
  }
  assert.throws(() => checkAddresses({ gateway: "10.0.1.1" }), isError("network.gateway"));
});

Deno.test("default routes claim nothing, however they are written; other routes do", () => {
  const claims = routeClaims([
    { destination: "0.0.0.0/0", link: "eth0" },
    { destination: "0.0.0.0/1", link: "tun0" },
    { destination: "128.0.0.0/1", link: "tun0" },
    { destination: "10.0.0.0/8", link: "tun0" },
    { destination: "10.9.0.0/16", link: null },
    { destination: "10.200.0.0/24", link: "outcall1" },
  ], "outcall1");
  assert.deepEqual(claims.map((claim) => `${claim.block} ${claim.owner}`), [
    "10.0.0.0/8 the host's route by tun0",
    "10.9.0.0/16 the host's route",
  ]);
});

Deno.test("agentName() strips one numeric tail (S013-FR-001, FR-002, SC-001)", () => {
  const table: readonly (readonly [string, string])[] = [
    ["foobar-1", "foobar"],
    ["foobar-2", "foobar"],
    ["my-agent-12", "my-agent"],
    ["project-001", "project"],
    ["agent-0", "agent"],
    ["standalone", "standalone"],
    ["project-final", "project-final"],
    ["project-", "project-"],
    ["a-1-2", "a-1"],
    ["/slashed-3", "slashed"],
    ["team-6f1c", "team-6f1c"],
    ["x".repeat(128), "x".repeat(128)],
  ];
  for (const [container, name] of table) assert.equal(agentName(container, {}), name);
  fc.assert(fc.property(suffix, fc.nat(), (name, n) => agentName(`${name}-${n}`, {}) === name));
});

Deno.test("agentName() prefers the operator's label", () => {
  assert.equal(agentName("db-7", { "outcall.agent": "writer-1" }), "writer-1");
  assert.equal(agentName("db-7", { "outcall.agent": "" }), "db");
});

Deno.test("containerName() is not misled by aliases of linked containers", () => {
  assert.equal(containerName(["/web/db", "/db-1"]), "db-1");
  assert.equal(containerName([]), "");
});

Deno.test("claimsOf() names who is where, and nobody where two claim one address (S013)", () => {
  const segment = {
    network: "outcall-a",
    bridge: "outcall1",
    subnet: "10.200.0.0/24",
    gateway: "10.200.0.1",
  };
  const endpoint = (IPv4Address: string) => ({
    Name: "",
    EndpointID: "",
    MacAddress: "",
    IPv4Address,
    IPv6Address: "",
  });
  const Containers = {
    one: endpoint("10.200.0.2/24"),
    two: endpoint("10.200.0.3/24"),
    thief: endpoint("10.200.0.3/24"),
    third: endpoint("10.200.0.3/24"),
    outside: endpoint("10.201.0.4/24"),
    gone: endpoint("10.200.0.5/24"),
    none: endpoint(""),
  };
  const names = new Map(Object.keys(Containers).map((id) => [id, `name of ${id}`]));
  names.delete("gone");
  assert.deepEqual(
    [...claimsOf(segment, { Containers }, names)],
    [
      ["10.200.0.2", {
        name: "name of one",
        containerId: "one",
        address: "10.200.0.2",
        network: "outcall-a",
      }],
      ["10.200.0.3", null],
    ],
  );
});

Deno.test("ownerOf() gives a port to the one container with its address and MAC (D13, S013)", () => {
  const endpoint = (IPv4Address: string, MacAddress: string) => ({
    Name: "",
    EndpointID: "",
    MacAddress,
    IPv4Address,
    IPv6Address: "",
  });
  const Containers = {
    one: endpoint("10.200.0.2/24", "02:42:0A:C8:00:02"),
    two: endpoint("10.200.0.3/24", "02:42:0a:c8:00:03"),
    three: endpoint("10.200.0.3/24", "02:42:0a:c8:00:04"),
    "ep-4": endpoint("10.200.0.5/24", "02:42:0a:c8:00:05"),
  };
  const at = (address: string, mac: string): string | null | undefined =>
    ownerOf({ index: 7, address, mac }, { Containers });
  assert.equal(at("10.200.0.2", "02:42:0a:c8:00:02"), "one");
  assert.equal(at("10.200.0.2", "02:42:0a:c8:00:99"), null, "another's MAC");
  assert.equal(at("10.200.0.3", "02:42:0a:c8:00:03"), null, "two claimants");
  assert.equal(at("10.200.0.5", "02:42:0a:c8:00:05"), undefined, "not told yet");
  assert.equal(at("10.200.0.20", "02:42:0a:c8:00:02"), null, "an address of nobody");
  assert.equal(ownerOf({ index: 7, address: "10.200.0.2", mac: "" }, {}), null);
});

Deno.test("a resolver on the host is found among its nameservers (ADV-NET-07)", () => {
  assert.equal(resolverOnHost("# x\nnameserver 9.9.9.9\nnameserver 127.0.0.53\n"), "127.0.0.53");
  assert.equal(resolverOnHost("nameserver 9.9.9.9\nsearch 127.0.0.1\nnameserver ::1"), null);
  assert.equal(resolverOnHost(""), null);
});

Deno.test("waysPast() names what leads an agent past the firewall (ADV-NET-05, ADV-NET-07)", () => {
  const segments = [
    { network: "outcall-a", bridge: "outcall1", subnet: "10.200.0.0/24", gateway: "10.200.0.1" },
    { network: "outcall-b", bridge: "outcall2", subnet: "10.200.1.0/24", gateway: "10.200.1.1" },
  ];
  const ways = (
    networks: readonly string[],
    dns: readonly string[],
    resolver: string | null = null,
  ): string[] => waysPast({ name: "x", networks, dns }, segments, resolver);
  assert.deepEqual(ways(["outcall-a", "outcall-b"], [], null), []);
  assert.deepEqual(ways(["bridge", "outcall-forged"], [], "127.0.0.1"), [], "no agent");
  assert.match(ways(["outcall-a", "bridge"], []).join(), /disconnect bridge x/);
  assert.match(ways(["outcall-b"], [], "127.0.0.1").join(), /127\.0\.0\.1.*--dns 10\.200\.1\.1/);
  assert.deepEqual(ways(["outcall-b"], ["10.200.1.1"], "127.0.0.1"), []);
});

Deno.test("parse() of an image reference keeps its parts apart (S008-FR-037, AS-019)", () => {
  const hex = "0123456789abcdef".repeat(4);
  const table: readonly (readonly [string, string, string | null, string | null])[] = [
    ["python", "python", "latest", null],
    ["python:3.12", "python", "3.12", null],
    ["registry.example:5000/team/agent", "registry.example:5000/team/agent", "latest", null],
    ["registry.example:5000/team/agent:dev", "registry.example:5000/team/agent", "dev", null],
    ["localhost/a", "localhost/a", "latest", null],
    [`a/b@sha256:${hex}`, "a/b", null, `sha256:${hex}`],
    [`a/b:1@sha256:${hex}`, "a/b", "1", `sha256:${hex}`],
  ];
  for (const [text, repository, tag, digest] of table) {
    const parsed = parse(text);
    assert.deepEqual([parsed.repository, parsed.tag, parsed.digest], [repository, tag, digest]);
    assert.deepEqual(parse(parsed.text), parsed);
  }
});

Deno.test("parse() refuses what is no image reference (ADV-CONTAINER-09)", () => {
  const refused = [
    ...["", " ", "a b", "a:", "a:b:c", "A", "-a", "--privileged", "a/../b", "/a", "a//b", "a@"],
    ...["a@sha256:12", "a\n", "a?x=1", "a#b", "http://a/b", `${"a".repeat(513)}`, "a%2fb", "ä"],
  ];
  for (const text of refused) assert.throws(() => parse(text), isError("image.invalid"), text);
  fc.assert(fc.property(fc.string(), (text) => {
    try {
      // What is taken cannot end the path of the request to Docker, or leave it.
      assert.doesNotMatch(parse(text).text, /[?#%\s]|(^|\/)\.\.?(\/|$)/);
    } catch (error) {
      assert(isError("image.invalid")(error), String(error));
    }
  }));
});

const path = fc.array(fc.constantFrom("", ".", "..", "run", "outcall", "etc", "a", "docker.sock"), {
  maxLength: 8,
}).map((parts) => `/${parts.join("/")}`);

Deno.test("clean() leaves an absolute path without detours, and is stable", () => {
  fc.assert(fc.property(path, (text) => {
    const cleaned = clean(text);
    assert.equal(clean(cleaned), cleaned);
    assert.match(cleaned, /^\/$|^(\/[^/]+)+$/);
    assert(!cleaned.split("/").some((part) => part === "." || part === ".."));
    assert.equal(
      cleaned,
      new URL(`file://${text.replace(/\/+/g, "/")}`).pathname.replace(/(.)\/$/, "$1"),
    );
  }));
});

Deno.test("a source exposes what lies at, above or below it (S008-FR-009)", () => {
  const sockets = ["/run/outcall/host.sock", "/run/docker.sock"];
  const table: readonly (readonly [string, string | undefined])[] = [
    ["/run/outcall/host.sock", sockets[0]],
    ["/run/outcall", sockets[0]],
    ["/", sockets[0]],
    ["/run/docker.sock", sockets[1]],
    ["/run/docker.sock2", undefined],
    ["/run/outcall2", undefined],
    ["/home", undefined],
  ];
  for (const [source, exposed] of table) assert.equal(exposes(source, sockets), exposed, source);
  fc.assert(
    fc.property(
      path,
      path,
      (a, b) => overlaps(clean(a), clean(b)) === overlaps(clean(b), clean(a)),
    ),
  );
});

Deno.test("no destination covers socket, shim or resolver (S008-FR-033, ADV-CONTAINER-02)", () => {
  const refused = [
    ...["/", "/run", "/run/outcall", "/run/outcall/agent.sock", "/run/outcall/x", "/var/run"],
    ...["/var/run/outcall", "/usr", "/usr/local/bin", "/usr/local/bin/outcall-agent"],
    ...["/usr/local/bin/outcall", "/etc", "/etc/resolv.conf", "/etc/./resolv.conf", "//etc"],
    ...["/a/../etc/resolv.conf", "/etc/x/..", "/run/"],
  ];
  for (const destination of refused) {
    for (const source of ["/home/me", "volume"]) {
      assert.throws(
        () => parseMount(`${source}:${destination}`),
        isError("mount.protected"),
        destination,
      );
    }
  }
});

Deno.test("parseMount() takes absolute sources and volumes, and nothing strange (ADV-CONTAINER-01)", () => {
  assert.deepEqual(parseMount("/home//me/./x/..:/work:ro,z"), {
    source: "/home/me",
    isVolume: false,
    destination: "/work",
    options: ["ro", "z"],
  });
  assert.equal(parseMount("data:/work").isVolume, true);
  const refused = [
    ...["/a", "/a:", ":/b", "/a:b", "./a:/b", "../a:/b", "a/b:/c", "~/a:/b", "/a:/b:ro:rw"],
    ...["/a:/b:", "/a:/b:shared", "/a:/b:rshared", "/a:/b:ro,exec", "/a\n:/b", "/a:/b\0", ""],
  ];
  for (const text of refused) {
    assert.throws(() => parseMount(text), isError("mount.invalid"), JSON.stringify(text));
  }
});

Deno.test("users other than numeric, non-root ones are refused (ADV-CONTAINER-04)", () => {
  const users = [
    ...[
      "0:0",
      "root",
      "501:0",
      "0:501",
      "+501:20",
      "501",
      "1:2:3",
      "",
      "1:",
      ":1",
      "-1:1",
      "1.0:1",
    ],
    ...["1 :1", "01:1", "00:1", "2147483648:1", "99999999999:1", "1:1\n"],
  ];
  for (const user of users) {
    assert.throws(() => checkRequest({ image: "a", user }), isError("container.user"), user);
  }
  assert.equal(checkRequest({ image: "a", user: "2147483647:1" }).user, "2147483647:1");
});

Deno.test("limits have defaults and bounds (S008-FR-016, ADV-CONTAINER-05)", () => {
  const standard = checkRequest({ image: "a" });
  assert.deepEqual([standard.memoryBytes, standard.cpuShares, standard.user], [
    536_870_912,
    1_024,
    "65532:65532",
  ]);
  for (const memory_limit of [6_291_455, 0, -1, 1e300, NaN, 6_291_456.5]) {
    assert.throws(
      () => checkRequest({ image: "a", memory_limit }),
      isError("container.memory_limit"),
    );
  }
  for (const cpu_shares of [1, 0, -1, 262_145, NaN]) {
    assert.throws(() => checkRequest({ image: "a", cpu_shares }), isError("container.cpu_shares"));
  }
});

Deno.test("container names carry no paths and no flags (ADV-CONTAINER-06)", () => {
  for (const name of ["a/b", "-a", ".a", "", "a".repeat(129), "a b", "a\n", "..", "ä", "a"]) {
    assert.throws(() => checkRequest({ image: "a", name }), isError("container.name"), name);
  }
  assert.match(checkRequest({ image: "a" }).name, /^outcall-[0-9a-f]{8}$/);
  const names = new Set(Array.from({ length: 100 }, () => checkRequest({ image: "a" }).name));
  assert.equal(names.size, 100); // S008-EC-009
});

Deno.test("a network is found by suffix and by full name", () => {
  const networkOf = (network?: string): string => checkRequest({ image: "a", network }).networkName;
  assert.equal(networkOf("agent-net"), "outcall-agent-net");
  assert.equal(networkOf("outcall-agent-net"), "outcall-agent-net");
  assert.equal(networkOf(), "outcall-default");
  for (const network of ["", "a b", "outcall-", "x".repeat(65), "../bridge"]) {
    assert.throws(() => networkOf(network), isError("network.name"), network);
  }
});

Deno.test("the caller sets no proxy variable in any spelling (ADV-CONTAINER-03, S006-FR-016)", () => {
  const env = [
    ...["HTTP_PROXY=x", "https_proxy=x", "No_Proxy=*", "NO_PROXY=*", "ALL_PROXY=x", "ftp_proxy=x"],
    "KEEP=a=b",
  ];
  assert.deepEqual(checkRequest({ image: "a", env }).env, ["KEEP=a=b"]);
  assert.deepEqual(proxyVariables("10.200.0.1", 8080), [
    "HTTP_PROXY=http://10.200.0.1:8080",
    "http_proxy=http://10.200.0.1:8080",
    "HTTPS_PROXY=http://10.200.0.1:8080",
    "https_proxy=http://10.200.0.1:8080",
    "NO_PROXY=localhost,127.0.0.1",
    "no_proxy=localhost,127.0.0.1",
  ]);
  assert.deepEqual(proxyVariables("10.200.0.1", null), []);
});

Deno.test("bad environment entries are refused without repeating their values", () => {
  for (const env of [["A"], ["=a"], ["1A=b"], ["A B=c"], ["A=1", "A=2"], ["A=\0"], ["A-B=1"]]) {
    assert.throws(() => checkRequest({ image: "a", env }), isError("container.env"));
  }
  assert.throws(
    () => checkRequest({ image: "a", env: ["hunter2"] }),
    (error) => error instanceof Error && !error.message.includes("hunter2"),
  );
});

Deno.test("working directory and arguments are bounded", () => {
  for (const working_dir of ["a", "/a/", "/a/../b", "", "/a\n", `/${"a".repeat(4_096)}`]) {
    assert.throws(
      () => checkRequest({ image: "a", working_dir }),
      isError("container.working_dir"),
    );
  }
  for (const cmd of [["a\0"], Array(1_025).fill("a"), ["a".repeat(32_769)]]) {
    assert.throws(() => checkRequest({ image: "a", cmd }), isError("container.cmd"));
  }
});

Deno.test("no request weakens a container (S008-FR-025 to FR-027, ADV-CONTAINER-08)", () => {
  const text = fc.string({ maxLength: 20 });
  const options = fc.record({
    name: suffix.map((name) => `a${name}x`),
    user: fc.constantFrom("1:1", "1000:100"),
    env: fc.array(suffix.map((name) => `A${name.replaceAll("-", "_")}=1`), { maxLength: 3 }),
    cmd: fc.array(text, { maxLength: 3 }),
    interactive: fc.boolean(),
    tty: fc.boolean(),
  }, { requiredKeys: [] });
  fc.assert(fc.property(options, (request) => {
    let checked;
    try {
      checked = checkRequest({ image: "a", ...request });
    } catch (error) {
      assert(error instanceof OutcallError);
      return;
    }
    const segment = managedSegment(genuine, () => true);
    assert(typeof segment !== "string");
    const spec = containerSpec(checked, {
      network: { id: "1", segment },
      proxyPort: 8080,
      binds: [],
      helpers: [],
      createdAt: new Date(0),
    });
    const { HostConfig } = spec;
    assert.equal(HostConfig?.NetworkMode, "outcall-a");
    assert.deepEqual(Object.keys(spec.NetworkingConfig?.EndpointsConfig ?? {}), ["outcall-a"]);
    assert.deepEqual(HostConfig?.CapDrop, ["ALL"]);
    assert.equal(HostConfig?.CapAdd, undefined);
    assert.equal(HostConfig?.Privileged, false);
    assert.equal(HostConfig?.ReadonlyRootfs, true);
    assert.equal(HostConfig?.PidMode, undefined);
    assert.equal(HostConfig?.PortBindings, undefined);
    assert.deepEqual(HostConfig?.SecurityOpt, ["no-new-privileges:true"]);
    assert.equal(HostConfig?.PidsLimit, 256);
    assert.deepEqual(HostConfig?.Dns, ["10.200.0.1"]);
    assert.match(spec.User ?? "", /^[1-9]\d*:[1-9]\d*$/);
  }));
});
