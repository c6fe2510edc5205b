/**
 * Attacks on the agent socket and the operator's from real containers, all on one host. The numbers are
 * those of the threat list; what a case needs beyond a container (a dead process's number, 4097
 * sessions) is in the case, or in tests/agent.
 */
import assert from "node:assert/strict";
import { eventually } from "../eventually.ts";
import {
  checkIn,
  type Client,
  converse,
  type RawAnswer,
  type RawRequest,
} from "../lab/agent_api.ts";
import { recordedDecisions } from "../lab/decisions.ts";
import { Lab } from "../lab/lab.ts";
import type { Finished } from "../lab/process.ts";
import { labTest } from "../lab/requirements.ts";
import { installShim } from "../lab/shim.ts";

const TOOLS = [
  ...["nft", "ip", "iptables", "unshare", "nsenter", "setpriv", "dockerd", "docker"],
  ...["curl", "dig", "nc", "ping", "python3"],
];
const HOSTILE_CALLER = new URL("./hostile_caller.py", import.meta.url);
const HOST_SOCKET = "/run/outcall/host.sock";

const RULES = `version: "1"
rules:
  - id: secretly-named-rule
    condition: http.host == "api.openai.com" && agent.name == "worker"
    action: allow
  - id: tools
    condition: run.tool == "git"
    action: allow
`;
/** Small enough for a test to exceed, large enough for the others not to notice. */
const FLAGS = ["--agent-perm-rate", "40/2", "--agent-rule-rate", "60/60"];

const check = (body: object): RawRequest => ({ path: "/v1/permissions/check", body });
const NETWORK = { action_type: "network_call", target: "https://api.openai.com/v1" };
const TOOL = { action_type: "tool_exec", target: "git" };

const ruleFile = (condition: string, id = "r"): string =>
  `version: "1"\nrules: [{ id: ${id}, action: allow, condition: '${condition}' }]\n`;

labTest(
  "hostile containers at the agent socket and the operator's",
  { tools: TOOLS },
  async (t) => {
    await using lab = await Lab.create({ docker: true });
    const { engine, host } = lab;
    assert.ok(engine !== null);
    await engine.importClients("python:3.12", lab.internet.rootPem);
    await installShim(host);
    let daemon = await lab.startDaemon({ rules: { "agent.yaml": RULES }, flags: FLAGS });
    await lab.cli("network", "create", "--name", "agent-net");

    const start = async (name: string, ...options: readonly string[]): Promise<Client> => {
      await engine.must([
        ...["run", "-d", "--rm", "--init=false", "--name", name, ...options],
        ...["python:3.12", "sleep", "600"],
      ]);
      return { run: (argv) => engine.docker(["exec", name, ...argv]) };
    };
    const agent = (name: string): Promise<Client> =>
      start(name, ...[
        ...["--network", "outcall-agent-net", "--dns", "10.200.0.1"],
        ...["-v", "/run/outcall/agent.sock.d:/run/outcall"],
      ]);
    const [worker, other, limited] = [
      await agent("worker-1"),
      await agent("other"),
      await agent("limited"),
    ];
    const idOf = async (name: string): Promise<string> =>
      (await engine.must(["inspect", "-f", "{{.Id}}", name])).trim();
    const pidOf = async (name: string): Promise<string> =>
      (await engine.must(["inspect", "-f", "{{.State.Pid}}", name])).trim();

    /** Everything that agents were told, for the last step. */
    const told: string[] = [];
    const talk = async (client: Client, requests: readonly RawRequest[]): Promise<RawAnswer[]> => {
      const answers = await converse(client, requests);
      told.push(...answers.map(({ text }) => text));
      return answers;
    };
    const statuses = async (client: Client, requests: readonly RawRequest[]): Promise<number[]> =>
      (await talk(client, requests)).map(({ status }) => status);
    const token = await checkIn(worker);
    const withToken = (request: RawRequest): RawRequest => ({
      ...request,
      headers: { ...token, ...request.headers },
    });

    await t.step("a forged identity changes nothing (T-4)", async () => {
      const headers = { "X-Agent-Name": "other", "X-Container-Id": await idOf("other") };
      const [own, claimed, verdict] = await talk(worker, [
        { path: "/v1/checkin" },
        { path: "/v1/checkin", headers: { ...headers, "X-Forwarded-For": "10.200.0.3" } },
        withToken({ ...check({ ...NETWORK, metadata: { "agent.name": "other" } }), headers }),
      ]);
      assert.equal(claimed?.text, own?.text);
      assert.match(own?.text ?? "", new RegExp(await idOf("worker-1")));
      assert.match(verdict?.text ?? "", /"allowed":true/); // the rule is the worker's
      assert.match(
        (await talk(other, [withTokenOf(await checkIn(other), check(NETWORK))]))[0]?.text ?? "",
        /"allowed":false/,
      );
    });

    await t.step(
      "what is no token of this daemon is 401, another's is 403 (ADV-AGENT-03, ADV-AGENT-04)",
      async () => {
        const { Authorization: own = "" } = token;
        const bearers = [
          "Bearer",
          "Bearer tok-0",
          `Bearer tok-${"0".repeat(32)}`,
          own.slice(0, -1),
          `${own}0`,
          own.toUpperCase(),
          own.replace("Bearer", "Basic"),
        ];
        const asked = bearers.map((Authorization) => ({
          ...check(TOOL),
          headers: { Authorization },
        }));
        assert.deepEqual(await statuses(worker, [check(TOOL), ...asked]), Array(8).fill(401));
        const [stolen] = await talk(other, [withToken(check(TOOL))]);
        assert.equal(stolen?.status, 403);
      },
    );

    await t.step(
      "bodies that say more, or nothing sensible, are refused (ADV-AGENT-05, ADV-AGENT-11, ADV-AGENT-12)",
      async () => {
        const before = (await recordedDecisions(lab)).length;
        const many = JSON.stringify(Array(1025).fill("x"));
        const nonsense: readonly object[] = [
          {},
          { ...TOOL, agent: "other" },
          { ...TOOL, container_id: await idOf("other") },
          { ...TOOL, action_type: "root" },
          { ...NETWORK, target: "" },
          { ...NETWORK, target: "https://user:secret@api.openai.com/" },
          { ...NETWORK, target: "ftp://api.openai.com/" },
          { ...NETWORK, target: "https://api.openai.com:0/" },
          { ...NETWORK, target: "api.openai.com\r\nHost: evil" },
          { ...NETWORK, metadata: { protocol: "icmp" } },
          { ...TOOL, metadata: { args_json: "{}" } },
          { ...TOOL, metadata: { args_json: many } },
          { ...TOOL, metadata: { args: 1 } },
        ];
        assert.deepEqual(
          await statuses(worker, nonsense.map((body) => withToken(check(body)))),
          Array(nonsense.length).fill(422),
        );
        const path = "/v1/permissions/check";
        assert.deepEqual(
          await statuses(worker, [
            withToken({ path, raw: "{" }),
            withToken({ path, raw: "[]" }),
            withToken({ path, raw: '"\\ud800"' }),
            { path: "/v1/checkin", body: { pid: 1 } },
          ]),
          [400, 422, 422, 422],
        );
        assert.equal((await recordedDecisions(lab)).length, before, "nothing of that was decided");
      },
    );

    await t.step(
      "a body of 65537 bytes is refused, and the connection stays good (ADV-AGENT-06, S004-EC-010)",
      async () => {
        assert.deepEqual(
          await statuses(worker, [
            withToken({ path: "/v1/permissions/check", bytes: 65_537 }),
            withToken(check(TOOL)),
            withToken({ path: "/v1/requests/rules", bytes: 1_000_000 }),
            withToken(check(TOOL)),
          ]),
          [413, 200, 413, 200],
        );
      },
    );

    await t.step(
      "another's request does not exist, nor does what is no id (ADV-AGENT-07, ADV-AGENT-08)",
      async () => {
        const body = { rule_file: ruleFile('http.host == "a.example"') };
        const [made] = await talk(worker, [withToken({ path: "/v1/requests/rules", body })]);
        assert.equal(made?.status, 201);
        const id = /rr-[0-9a-f]{12}/.exec(made?.text ?? "")?.[0] ?? "";
        const ids = [
          ...[
            id,
            "rr-000000000000",
            "rr-../../escape",
            "rr-..%2f..%2fescape",
            "%2e%2e",
            `${id}%00`,
          ],
          ...[`${id}.yaml`, "a".repeat(5_000)],
        ];
        const othersToken = await checkIn(other);
        const answers = await talk(
          other,
          ids.map((id) =>
            withTokenOf(othersToken, { method: "GET", path: `/v1/requests/rules/${id}` })
          ),
        );
        assert.deepEqual(answers.map(({ status }) => status), Array(ids.length).fill(404));
        assert.equal(answers[0]?.text, answers[1]?.text);
        assert.equal((await lab.cli("requests", "reject", id)).code, 0);
      },
    );

    await t.step(
      "a rate limit says when, holds for one container, and slides (ADV-AGENT-09, S004-EC-006)",
      async () => {
        const limitedToken = await checkIn(limited);
        const many = Array<RawRequest>(41).fill(withTokenOf(limitedToken, check(TOOL)));
        const answers = await talk(limited, many);
        assert.deepEqual(answers.map(({ status }) => status), [...Array(40).fill(200), 429]);
        const wait = answers.at(-1)?.headers["retry-after"] ?? "";
        assert.match(wait, /^[12]$/);
        assert.deepEqual(await statuses(worker, [withToken(check(TOOL))]), [200]);
        await new Promise((resolve) => setTimeout(resolve, Number(wait) * 1_000));
        assert.deepEqual(await statuses(limited, many.slice(0, 1)), [200]);
      },
    );

    await t.step(
      "rule files that are bombs are refused whole, and the next check is answered (ADV-AGENT-10, ADV-AGENT-13)",
      async () => {
        const aliases = "bcdefghi".split("").map((name, i) =>
          `${name}: &${name} [${Array(9).fill(`*${"abcdefgh"[i]}`).join(",")}]\n`
        ).join("");
        const nested = Array.from(
          { length: 60 },
          (_, i) => `  d${i}: "${i === 59 ? "true" : `$d${i + 1} || $d${i + 1}`}"\n`,
        ).join("");
        const files = [
          `${ruleFile("true")}---\n${ruleFile("true")}`,
          `version: "1"\na: &a [x,x,x,x,x,x,x,x,x]\n${aliases}rules: *i\n`,
          `version: "1"\nrules:\n${"- {}\n".repeat(10_001)}`,
          `version: "1"\ndefinitions:\n${nested}${ruleFile("$d0").slice(13)}`,
          `version: "1"\ndefinitions: { a: "$b", b: "$a" }\n${ruleFile("$a").slice(13)}`,
          `[${"[".repeat(20_000)}`,
          ruleFile(`${"(".repeat(5_000)}true${")".repeat(5_000)}`),
          ruleFile("run.args.all(a, run.args.all(b, run.args.all(c, a + b + c != a)))"),
          ruleFile('http.path.matches("(a{1000}){1000}")'),
          ruleFile("true").replace("action: allow", "action: allow, priority: 1"),
          `${ruleFile("true")}# ${"x".repeat(70_000)}`,
        ];
        for (const [i, rule_file] of files.entries()) {
          const status = await statuses(worker, [
            withToken({ path: "/v1/requests/rules", body: { rule_file } }),
            withToken(check(TOOL)),
          ]);
          assert.deepEqual(
            status,
            [i === files.length - 1 ? 413 : 422, 200],
            rule_file.slice(0, 80),
          );
        }
        assert.equal((await lab.cli("requests", "list")).stdout, "No pending rule requests.\n");
      },
    );

    await t.step(
      "neither socket has a route of the other (ADV-AGENT-14, S004-FR-019)",
      async () => {
        const operators: readonly RawRequest[] = [
          { method: "GET", path: "/api/v1/bridge" },
          { method: "GET", path: "/api/v1/rules" },
          { path: "/api/v1/rules/reload" },
          { method: "GET", path: "/api/v1/requests/rules" },
          { path: "/api/v1/requests/rules/rr-000000000000/approve" },
          { path: "/api/v1/container/create", body: {} },
          { method: "GET", path: "/v1/requests/rules" },
          { method: "GET", path: "//api/v1/bridge" },
          { method: "GET", path: "/v1/../api/v1/bridge" },
        ];
        assert.deepEqual(await statuses(worker, operators.map(withToken)), [
          ...Array(6).fill(404),
          ...[405, 404, 404],
        ]);
        const agents = ["/v1/checkin", "/v1/permissions/check", "/v1/requests/rules"];
        const answers = await converse(host, agents.map((path) => ({ path })), HOST_SOCKET);
        assert.deepEqual(answers.map(({ status }) => status), [404, 404, 404]);
        const [who] = await converse(host, [{ method: "GET", path: "/v1/whoami" }], HOST_SOCKET);
        assert.equal(who?.status, 404);
      },
    );

    await t.step(
      "a process in a group that is named like another container is still its own (ADV-AGENT-16)",
      async () => {
        const hostile = Deno.readTextFileSync(HOSTILE_CALLER);
        const [own, foreign] = [await idOf("worker-1"), await idOf("other")];
        for (
          const nested of ["", foreign, `docker/${foreign}`, foreign.slice(0, 63), `x${foreign}`]
        ) {
          const { stdout, stderr } = await host.run([
            ...["python3", "-c", hostile, "joined", await pidOf("worker-1"), nested],
          ]);
          told.push(stdout);
          assert.ok(stdout.includes(`"container_id":"${own}"`), `${nested}: ${stdout}${stderr}`);
        }
      },
    );

    await t.step(
      "who gets the number of a process that connected does not get its connection (ADV-AGENT-15)",
      async () => {
        const hostile = Deno.readTextFileSync(HOSTILE_CALLER);
        const own = await idOf("worker-1");
        const orphan = host.spawn([
          ...["docker", "exec", "-i", "worker-1", "python3", "-c", hostile, "orphan"],
        ]);
        const inner = (await orphan.line("stdout", (line) => line.startsWith("child "))).slice(6);
        const old = (await host.must([
          ...["bash", "-c"],
          'for p in /proc/[0-9]*; do grep -q "$0" $p/cgroup && grep -qP "^NSpid:.*\\t$1$" $p/status && ' +
          "echo ${p#/proc/}; done 2> /dev/null; true",
          ...[own, inner],
        ])).trim();
        assert.match(old, /^\d+$/);
        const resume = async (): Promise<void> => {
          await host.must(["kill", "-CONT", `${daemon.pid}`]);
          daemon.process.kill("SIGCONT"); // nsenter stops with its child
        };
        await host.must(["kill", "-STOP", `${daemon.pid}`]);
        try {
          await orphan.tell("connect");
          await orphan.line("stdout", (line) => line === "ended");
          const heir = host.spawn([
            ...["python3", "-c", hostile, "reused", await pidOf("other"), old],
          ]);
          await heir.line("stdout", (line) => line === "joined");
          // What a daemon that trusts numbers would see: the other container.
          assert.ok(
            (await host.must(["cat", `/proc/${old}/cgroup`])).includes(await idOf("other")),
          );
          await resume();
          await orphan.tell("ask");
          const refused = await orphan.line("stdout", (line) => line.startsWith("{"));
          assert.match(refused, /"code":"peer.forbidden".*|cannot be identified/);
          await heir.tell("ask");
          const itself = await heir.line("stdout", (line) => line.startsWith("{"));
          assert.ok(itself.includes(await idOf("other")), itself);
          told.push(refused, itself);
          await Promise.all([orphan.ended, heir.ended]);
        } finally {
          await resume();
        }
      },
    );

    await t.step(
      "two containers that flood at once keep nobody out (ADV-AGENT-09, T-8)",
      async () => {
        const flooders = ["worker-1", "limited"].map((name) =>
          host.spawn(["docker", "exec", "-i", name, "python3", "-c", FLOOD])
        );
        for (const flooder of flooders) await flooder.line("stdout", (line) => line === "flooding");
        const othersToken = await checkIn(other);
        for (let i = 0; i < 2; i++) {
          assert.deepEqual(await statuses(other, [withTokenOf(othersToken, check(TOOL))]), [200]);
        }
        const shim = ["run", "--name", "v", "--", "outcall-agent", "check", "tool", "git"];
        assert.equal((await lab.cli(...shim)).code, 0);
        const dig = await other.run(["dig", "+short", "+time=5", "api.openai.com"]);
        assert.equal(dig.code, 0); // refused by policy, but answered
        for (const flooder of flooders) await flooder.tell("stop");
        const counts = await Promise.all(
          flooders.map(async (flooder) =>
            await flooder.line("stdout", (line) => /^\d+$/.test(line))
          ),
        );
        for (const count of counts) assert.ok(Number(count) > 100, `${count} connections`);
        await Promise.all(flooders.map(({ ended }) => ended));
        assert.deepEqual(await statuses(worker, [{ path: "/v1/checkin" }]), [200]);
      },
    );

    await t.step("an address that two claim is nobody's (ADV-AGENT-17)", async () => {
      await host.must(["bash", "-ec", DOUBLE]);
      try {
        await eventually(async () =>
          (await statuses(worker, [{ path: "/v1/checkin" }]))[0] === 403
        );
        const [again] = await talk(worker, [withToken(check(TOOL))]);
        assert.equal(again?.status, 403);
      } finally {
        await host.must(["ip", "link", "del", "ocr00000001"]);
      }
      await eventually(async () => (await statuses(worker, [{ path: "/v1/checkin" }]))[0] === 200);
    });

    await t.step(
      "the operator's socket, mounted into a container, refuses whoever is in there (D22, ADV-HOST-01, S004-EC-008)",
      async () => {
        const mount = ["-v", "/run/outcall:/run/outcall"];
        const withHost = ["--pid", "host", "--network", "host"];
        const intruders = [
          await start("intruder", ...mount),
          await start("intruder-agent", "--network", "outcall-agent-net", ...mount),
          await start("intruder-host", ...withHost, ...mount),
        ];
        for (const intruder of intruders) {
          const answers = await converse(intruder, [
            { method: "GET", path: "/api/v1/bridge" },
          ], HOST_SOCKET);
          assert.equal(answers[0]?.status, 403);
          assert.match(answers[0]?.text ?? "", /not open to processes inside containers/);
        }
        assert.equal((await statuses(worker, [{ path: "/v1/checkin" }]))[0], 200);
        // A mode that somebody widened does not let a foreign user in.
        await host.must(["chmod", "666", HOST_SOCKET]);
        const foreign: Client = {
          run: (argv): Promise<Finished> =>
            host.run([
              ...["setpriv", "--reuid", "1234", "--regid", "1234", "--clear-groups"],
              ...["env", "PATH=/usr/bin:/bin", ...argv],
            ]),
        };
        const [refused] = await converse(foreign, [
          { method: "GET", path: "/api/v1/bridge" },
        ], HOST_SOCKET);
        assert.equal(refused?.status, 403);
      },
    );

    await t.step(
      "answers to requests: once, in words, and never over a file (ADV-HOST-04, ADV-HOST-05, ADV-HOST-06)",
      async () => {
        const ask = async (host: string): Promise<string> => {
          const body = { rule_file: ruleFile(`http.host == "${host}"`, host.replaceAll(".", "-")) };
          const [made] = await talk(worker, [withToken({ path: "/v1/requests/rules", body })]);
          return /rr-[0-9a-f]{12}/.exec(made?.text ?? "")?.[0] ?? "";
        };
        const answer = async (id: string, how: string, body: object): Promise<number> =>
          (await lab.api("POST", `/api/v1/requests/rules/${id}/${how}`, body)).status;
        const first = await ask("one.example");
        for (const reason of ["", "  ", "a\nb", "x".repeat(1025), "ü".repeat(600)]) {
          assert.equal(await answer(first, "reject", { reason }), 422);
        }
        // At the same moment, and beside a reload: one of them wins.
        const both = await Promise.all([
          answer(first, "approve", {}),
          answer(first, "reject", {}),
          lab.api("POST", "/api/v1/rules/reload"),
          answer(first, "approve", {}),
        ]);
        const answers = both.filter((each) => typeof each === "number");
        assert.deepEqual(answers.toSorted((a, b) => a - b), [200, 409, 409]);

        const second = await ask("two.example");
        const file = `/etc/outcall/rules.d/agent-${second}.yaml`;
        await host.write(file, "# mine\n");
        const before = (await lab.cli("rules", "list")).stdout;
        assert.equal(await answer(second, "approve", {}), 500);
        assert.equal(await host.must(["cat", file]), "# mine\n");
        assert.equal((await lab.cli("rules", "list")).stdout, before);
        assert.match((await lab.cli("requests", "list")).stdout, new RegExp(second));
        await host.must(["rm", file]);
        assert.equal(await answer(second, "reject", { reason: "<b>no</b>" }), 200);
      },
    );

    await t.step(
      "the policy cannot be taken down or bent by files (ADV-HOST-07, ADV-HOST-10, ADV-HOST-11)",
      async () => {
        const rules = "/etc/outcall/rules.d";
        const before = (await lab.cli("rules", "list")).stdout;
        const down = await lab.cli("bridge", "down");
        assert.equal(down.code, 1);
        assert.match(down.stderr, /worker-1/);
        for (
          const [spoil, named] of [
            [`ln -s agent.yaml ${rules}/link.yaml`, "link.yaml"],
            [`echo 'rules: [' > ${rules}/bad.yaml`, "bad.yaml"],
          ] as const
        ) {
          await host.must(["bash", "-c", spoil]);
          const reload = await lab.cli("rules", "reload");
          assert.equal(reload.code, 1);
          assert.ok(reload.stderr.includes(named), reload.stderr);
          await host.must(["rm", `${rules}/${named}`]);
          assert.equal((await lab.cli("rules", "list")).stdout, before);
        }
      },
    );

    await t.step(
      "the log has neither tokens nor arguments nor metadata (ADV-HOST-12)",
      async () => {
        const secret = "hunter2-hunter2";
        const metadata = { args_json: JSON.stringify([secret]), password: secret };
        assert.deepEqual(
          await statuses(worker, [
            withToken(check({ ...TOOL, metadata })),
            withToken(check({ ...NETWORK, target: `https://api.openai.com/?key=${secret}` })),
          ]),
          [200, 200],
        );
        const log = daemon.log.join("\n");
        assert.ok(log.length > 1_000);
        assert.ok(!log.includes(secret) && !log.includes("tok-"));
        assert.ok(!JSON.stringify(await recordedDecisions(lab)).includes(secret));
      },
    );

    await t.step(
      "without Docker nobody is recognised, and nobody new is let in (ADV-AGENT-19)",
      async () => {
        await engine.must([
          ...["exec", "-d", "other", "bash", "-c", ASK_FOR_EVER],
        ]);
        const answer = host.path(`/proc/${await pidOf("other")}/root/tmp/answer`);
        const read = (): Promise<string> => Deno.readTextFile(answer).catch(() => "");
        await eventually(async () => (await read()).includes('"ok":true'));
        await host.must(["bash", "-c", "kill -9 $(cat /run/docker.pid)"]);
        await eventually(async () => (await read()).includes('"code":"peer.unknown"'));
        told.push(await read());
        await daemon.stop();
        daemon = await lab.startDaemon({ flags: FLAGS });
        await eventually(async () => (await read()).includes('"code":"peer.unknown"'));
      },
    );

    await t.step(
      "nothing that agents were told names a rule, a file, the host or another agent (ADV-AGENT-20, S004-SC-004)",
      async () => {
        const text = told.join("\n");
        assert.ok(text.length > 5_000);
        for (
          const secret of [
            ...[
              "secretly-named",
              "agent.yaml",
              "/etc/",
              "/var/",
              "/proc/",
              "host.sock",
              "outcall0",
            ],
            ...["outcall1", "nft", "docker.sock", ".ts:", "at async"],
          ]
        ) assert.ok(!text.includes(secret), secret);
        await Promise.resolve();
      },
    );
  },
);

function withTokenOf(token: Readonly<Record<string, string>>, request: RawRequest): RawRequest {
  return { ...request, headers: { ...token, ...request.headers } };
}

/** Opens connections as fast as it can, with half a request on each, until told to stop. */
const FLOOD = `
import select, socket, sys
count, held = 0, []
print("flooding", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    try:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(1)
        connection.connect("/run/outcall/agent.sock")
        connection.sendall(b"POST /v1/permissions/check HTTP/1.1\\r\\nHost: x\\r\\n")
        held.append(connection)
    except OSError:
        pass
    count += 1
    if len(held) > 200:
        held.pop(0).close()
print(count, flush=True)
`;

/** A cable whose alias claims the worker's address, as only root can lay it. */
const DOUBLE = `
ip link add ocr00000001 type veth peer name double0
ip link set ocr00000001 alias "outcall-run 10.200.0.2 outcall-agent-net double"
ip link set ocr00000001 master outcall1`;

const ASK_FOR_EVER = `while :; do
  answer=$(curl -s -m 20 --unix-socket /run/outcall/agent.sock -X POST http://x/v1/checkin)
  echo "$answer" > /tmp/answer
  sleep 0.2
done`;
