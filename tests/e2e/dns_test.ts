/**
 * Resolving from a real container with the resolvers that people have: glibc's (getent, Python), the
 * one of BIND (dig, nslookup), BusyBox' own, musl's. The upstream in the lab is the witness of what was asked.
 */
import assert from "node:assert/strict";
import { recordedDecisions } from "../lab/decisions.ts";
import { importImage } from "../lab/dockerd.ts";
import { API_ADDRESS, UPSTREAM_RESOLVER } from "../lab/internet/world.ts";
import { Lab } from "../lab/lab.ts";
import type { Engine } from "../lab/engine.ts";
import type { Finished } from "../lab/process.ts";
import { hasTool, labTest } from "../lab/requirements.ts";
import { nothing } from "../lab/witness.ts";

const TOOLS = [
  ...["nft", "ip", "iptables", "unshare", "nsenter", "dockerd", "docker"],
  ...["getent", "dig", "nslookup", "busybox", "curl", "python3"],
];

const IMAGE = "resolvers:1";
const GATEWAY = "10.200.255.1";

const RULES = `version: "1"
rules:
  - id: no-org
    condition: 'dns.query == "example.org"'
    action: block
    priority: 10
  - id: api
    condition: 'http.host == "api.openai.com"'
    action: allow
  - id: github
    condition: 'http.host == "www.github.com"'
    action: allow
  - id: rebinding
    condition: 'http.host.under("attacker.net")'
    action: allow
`;

/** Asks musl's resolver, for A and AAAA at once as most programs do. */
const MUSL_PROGRAM = `
#include <netdb.h>
#include <stdio.h>
#include <arpa/inet.h>
int main(int count, char **arguments) {
  struct addrinfo wanted = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM }, *found;
  char text[64];
  int error = getaddrinfo(arguments[1], 0, &wanted, &found);
  if (error) return puts(gai_strerror(error)), 2;
  for (; found; found = found->ai_next) {
    struct sockaddr_in *address = (struct sockaddr_in *) found->ai_addr;
    if (found->ai_family == AF_INET) puts(inet_ntop(AF_INET, &address->sin_addr, text, 64));
    else puts("not IPv4");
  }
}
`;

/** Python's way to ask glibc for both families; prints the addresses. */
const BOTH_FAMILIES = "import socket, sys; " +
  "print(sorted({a[4][0] for a in socket.getaddrinfo(sys.argv[1], 443, socket.AF_UNSPEC)}))";

/** One container whose resolver is the gateway, behind a running daemon. */
class Container {
  constructor(readonly engine: Engine) {}

  run(...argv: readonly string[]): Promise<Finished> {
    return this.engine.docker(["exec", "agent", ...argv]);
  }

  /** What is printed by a command that must succeed, without the final line end. */
  async must(...argv: readonly string[]): Promise<string> {
    return (await this.engine.must(["exec", "agent", ...argv])).trimEnd();
  }
}

labTest("resolvers in a real container work as behind any good resolver", {
  tools: TOOLS,
}, async (t) => {
  await using lab = await Lab.create({ docker: true });
  const { engine, host, witness } = lab;
  assert(engine !== null);
  const programs = ["sleep", "cat", "getent", "dig", "nslookup", "busybox", "curl", "python3"];
  const musl = hasTool("musl-gcc");
  if (musl) {
    await host.write("/usr/local/bin/musl-lookup.c", MUSL_PROGRAM);
    await host.must([
      ...["musl-gcc", "-static", "-o", "/usr/local/bin/musl-lookup"],
      "/usr/local/bin/musl-lookup.c",
    ]);
  }
  await importImage(host.path("/run/docker.sock"), IMAGE, programs);
  await lab.startDaemon({ rules: { "dns.yaml": RULES } });
  await engine.must([
    ...["run", "-d", "--name", "agent", "--network", "outcall-default", "--dns", GATEWAY],
    ...["-v", "/usr/local/bin:/opt/host:ro", IMAGE, "sleep", "600"],
  ]);
  const agent = new Container(engine);

  await t.step("glibc: getent finds allowed names, in any case and with a final dot", async () => {
    for (const name of ["api.openai.com", "API.OpenAI.com", "api.openai.com."]) {
      assert.match(await agent.must("getent", "ahostsv4", name), new RegExp(`^${API_ADDRESS} `));
    }
    assert.match(await agent.must("getent", "hosts", "api.openai.com"), new RegExp(API_ADDRESS));
    assert.equal((await agent.run("getent", "ahosts", "example.com")).code, 2);
  });

  await t.step("glibc: A and AAAA asked at once give the IPv4 address alone (D27)", async () => {
    const found = await agent.must("python3", "-c", BOTH_FAMILIES, "api.openai.com");
    assert.equal(found, `['${API_ADDRESS}']`);
    const refused = await agent.run("python3", "-c", BOTH_FAMILIES, "example.com");
    assert.match(refused.stderr, /Name or service not known/);
  });

  await t.step("an alias is followed to its address", async () => {
    const found = await agent.must("python3", "-c", BOTH_FAMILIES, "www.github.com");
    assert.equal(found, "['140.82.121.4']");
  });

  await t.step(
    "dig: by UDP and TCP, AAAA is empty and not an error, blocks are explained",
    async () => {
      const dig = (...args: readonly string[]): Promise<string> =>
        agent.must("dig", `@${GATEWAY}`, "+time=3", "+tries=1", ...args);
      assert.equal(await dig("+short", "api.openai.com"), API_ADDRESS);
      assert.equal(await dig("+short", "+tcp", "api.openai.com"), API_ADDRESS);
      assert.match(await dig("AAAA", "api.openai.com"), /status: NOERROR.*ANSWER: 0/s);
      const blocked = await dig("example.com", "TXT");
      assert.match(blocked, /status: NXDOMAIN/);
      assert.match(blocked, /EDE: 15 \(Blocked\): \(Blocked by outcall, decision \w+\)/);
      const id = /decision (\w+)\)/.exec(blocked)?.[1];
      const decision = (await recordedDecisions(lab)).find((made) => made.id === id);
      assert.deepEqual([decision?.agent?.name, decision?.verdict], ["agent", "block"]);
      assert.match(await dig("inside.attacker.net"), /status: SERVFAIL/);
    },
  );

  await t.step("nslookup is answered as dig is", async () => {
    assert.match(await agent.must("nslookup", "api.openai.com"), new RegExp(API_ADDRESS));
    assert.match((await agent.run("nslookup", "example.com")).stdout, /NXDOMAIN/);
  });

  await t.step("BusyBox' nslookup agrees, which asks for A and AAAA at once", async () => {
    const addressesOf = async (name: string): Promise<readonly string[]> => {
      const found = await agent.must("busybox", "nslookup", name);
      return [...found.matchAll(/^Address: (.+)$/gm)].map(([, address]) => address ?? "");
    };
    for (const name of ["api.openai.com", "API.openai.com", "api.openai.com."]) {
      assert.deepEqual(await addressesOf(name), [API_ADDRESS]);
    }
    assert.deepEqual(await addressesOf("www.github.com"), ["140.82.121.4"]);
    for (const name of ["example.com", "Example.COM", "example.com."]) {
      const refused = await agent.run("busybox", "nslookup", name, GATEWAY);
      assert.equal(refused.code, 1);
      assert.equal([...refused.stdout.matchAll(/^\*\* .*: NXDOMAIN$/gm)].length, 2);
    }
  });

  await t.step({
    name: musl ? "musl agrees" : "musl agrees [skipped: needs musl-gcc]",
    ignore: !musl,
    fn: async () => {
      const lookUp = (name: string): Promise<Finished> => agent.run("/opt/host/musl-lookup", name);
      for (const name of ["api.openai.com", "API.openai.com", "api.openai.com."]) {
        assert.equal((await lookUp(name)).stdout, `${API_ADDRESS}\n`);
      }
      assert.deepEqual((await lookUp("www.github.com")).stdout, "140.82.121.4\n");
      const refused = await lookUp("example.com");
      assert.deepEqual([refused.code, refused.stdout], [2, "Name does not resolve\n"]);
    },
  });

  await t.step("a denied name reaches no upstream, by DNS or through the proxy", async () => {
    for (const name of ["example.com", "example.org", "secret.data.example.com"]) {
      const mark = await witness.mark();
      await agent.run("dig", `@${GATEWAY}`, "+time=1", "+tries=1", name);
      await agent.run("dig", `@${GATEWAY}`, "+time=1", "+tries=1", "+tcp", name);
      const proxy = `http://${GATEWAY}:8080`;
      await agent.run("curl", "-s", "-m", "3", "-x", proxy, `https://${name}/`);
      await agent.run("curl", "-s", "-m", "3", "-x", proxy, `http://${name}/`);
      assert(nothing(await witness.since(mark, { to: UPSTREAM_RESOLVER, name })), name);
    }
    const mark = await witness.mark();
    await lab.control(["dig", "+time=1", "+tries=1", "secret.data.example.com"]);
    const control = { to: UPSTREAM_RESOLVER, name: "secret.data.example.com" };
    assert(!nothing(await witness.since(mark, control)), "the witness would have seen it");
  });

  await t.step("a reload that blocks a cached name is in force when it answers", async () => {
    assert.equal(await agent.must("dig", `@${GATEWAY}`, "+short", "api.openai.com"), API_ADDRESS);
    await lab.writeRules({});
    assert.equal((await lab.cli("rules", "reload")).code, 0);
    const dig = await agent.must("dig", `@${GATEWAY}`, "api.openai.com");
    assert.match(dig, /status: NXDOMAIN/);
  });
});
