/**
 * `outcall run`: a command of the host as an agent, on a machine without Docker. The same attempts as
 * a container's, with the internet as the witness.
 */
import assert from "node:assert/strict";
import { eventually } from "../eventually.ts";
import { QUICKSTART_RULE } from "../demo/attempts.ts";
import { recordedDecisions } from "../lab/decisions.ts";
import { UPSTREAM_RESOLVER } from "../lab/internet/world.ts";
import { Lab } from "../lab/lab.ts";
import { positiveControl } from "../lab/probe.ts";
import type { Finished } from "../lab/process.ts";
import { labTest } from "../lab/requirements.ts";
import { installShim } from "../lab/shim.ts";
import { nothing } from "../lab/witness.ts";

const TOOLS = [
  ...["nft", "ip", "unshare", "nsenter", "setpriv", "setsid", "curl", "dig", "nc", "python3"],
];

const ONLY_A = `version: "1"
rules:
  - id: only-a
    action: allow
    condition: 'http.host == "github.com" && agent.name == "a"'
  - id: shell
    action: allow
    condition: 'run.tool == "sh"'
`;

labTest(
  "outcall run: the host's commands as agents, without Docker",
  { tools: TOOLS },
  async (t) => {
    await using lab = await Lab.create({ docker: false });
    const { host, witness } = lab;
    await host.trust(lab.internet.rootPem);
    await installShim(host);
    let daemon = await lab.startDaemon({ rules: { "q.yaml": QUICKSTART_RULE, "a.yaml": ONLY_A } });
    const run = (...args: readonly string[]): Promise<Finished> =>
      host.run(["outcall", "run", ...args]);
    const cables = async (): Promise<string[]> =>
      [...(await host.must(["ip", "-o", "link"])).matchAll(/ (ocr[0-9a-f]{8})[@:]/g)]
        .map((match) => match[1] ?? "");
    const gone = async (): Promise<void> => {
      for (let polls = 0; (await cables()).length > 0; polls++) {
        assert.ok(polls < 100, "a cable is left behind");
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    };

    await t.step("input, output, arguments and exit code are the command's", async () => {
      const { code, stdout, stderr } = await run(
        ...["--", "sh", "-c", 'read line; echo "$line $1"; echo err >&2; exit 7', "sh", "b c"],
      );
      assert.deepEqual({ code, stdout, stderr }, { code: 7, stdout: " b c\n", stderr: "err\n" });
      assert.equal((await run("--", "sh", "-c", "kill -9 $$")).code, 137);
      assert.equal((await run("--", "no-such-program")).code, 127);
      await gone();
    });

    await t.step(
      "it is nobody, without any privilege, and sees neither processes nor sockets",
      async () => {
        const { stdout } = await run(
          ...[
            "--",
            "sh",
            "-c",
            "id -u; id -G; cat /proc/self/status; ls /proc | grep -c '^[0-9]'; ls /tmp",
          ],
        );
        const [uid, groups, ...rest] = stdout.split("\n");
        assert.deepEqual([uid, groups], ["65532", "65532"]);
        const text = rest.join("\n");
        for (const set of ["Prm", "Eff", "Inh", "Bnd", "Amb"]) {
          assert.match(text, new RegExp(`^Cap${set}:\\t0+$`, "m"));
        }
        assert.match(text, /^NoNewPrivs:\t1$/m);
        assert.doesNotMatch(text, /outcall\b|lock|lab/);
        assert.match((await run("-u", "1234:1235", "--", "id")).stdout, /^uid=1234 gid=1235/);
      },
    );

    await t.step("an allowed host is reached, through DNS filter and proxy", async () => {
      const mark = await witness.mark();
      const { stdout, stderr } = await run(
        ...["--name", "a", "--", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}"],
        "https://api.openai.com/v1/models",
      );
      assert.equal(stdout, "401", stderr);
      const { receipts } = await witness.since(mark, { name: "api.openai.com", port: 443 });
      assert.deepEqual(receipts.map(({ kind }) => kind), ["tls", "http"]);
    });

    await t.step("rules know it by its name, a trailing number aside", async () => {
      const ask = async (...name: readonly string[]): Promise<string> =>
        (await run(...name, "--", "dig", "+short", "github.com")).stdout;
      assert.match(await ask("--name", "a"), /^\d/);
      assert.match(await ask("--name", "a-2"), /^\d/);
      assert.equal(await ask("--name", "b"), "");
      assert.equal(await ask(), "");
      const records = (await recordedDecisions(lab)).filter(({ attempt }) =>
        attempt.host === "github.com"
      );
      assert.deepEqual(
        records.map(({ agent, verdict }) => [agent?.name, verdict]),
        [["a", "allow"], ["a", "allow"], ["b", "block"], ["", "block"]],
      );
    });

    await t.step("everything else is dropped", async () => {
      for (
        const [argv, arrives] of [
          [["nc", "-z", "-w", "1", "1.1.1.1", "443"], { to: "1.1.1.1" }],
          [["dig", "+time=1", "+tries=1", "example.com", "@8.8.8.8"], { to: "8.8.8.8" }],
          [["curl", "-s", "-m", "2", "https://example.com"], {
            to: UPSTREAM_RESOLVER,
            name: "example.com",
          }],
        ] as const
      ) {
        await positiveControl(lab, argv, arrives);
        const mark = await witness.mark();
        assert.notEqual((await run("--name", "a", "--", ...argv)).stdout, "reached");
        assert.ok(nothing(await witness.since(mark, arrives)), argv.join(" "));
      }
    });

    await t.step(
      "a signal to outcall reaches the command, and its exit code comes back",
      async () => {
        const process = host.spawn([
          ...[
            "bash",
            "-c",
            "echo $$; exec outcall run -- bash -c 'trap \"exit 9\" TERM; echo up; while :; do sleep 0.05; done'",
          ],
        ]);
        const pid = Number(await process.line("stdout", () => true));
        await process.line("stdout", (line) => line === "up");
        await host.kill(pid, "TERM");
        assert.equal(await process.ended, 9);
        await gone();
      },
    );

    await t.step("killed with -9, outcall takes everything with it", async () => {
      const process = host.spawn([
        ...[
          "bash",
          "-c",
          "echo $$; exec outcall run --name a -- bash -c 'echo up; sleep 7531 & sleep 7531'",
        ],
      ]);
      const pid = Number(await process.line("stdout", () => true));
      await process.line("stdout", (line) => line === "up");
      assert.equal((await cables()).length, 1);
      await host.kill(pid, "KILL");
      await process.ended;
      await gone();
      assert.notEqual((await host.run(["pgrep", "-x", "sleep"])).code, 0);
    });

    await t.step(
      "it has the agent socket and the shim, and is known by its namespace",
      async () => {
        const shim = (name: string, ...args: readonly string[]): Promise<Finished> =>
          run("--name", name, "--", "outcall-agent", ...args);
        const who = await shim("a-2", "whoami");
        const { name, container_id: container, network } = JSON.parse(who.stdout);
        assert.deepEqual([name, container, network], ["a", null, "outcall-default"], who.stderr);
        assert.equal((await shim("a", "check", "network", "https://github.com")).code, 0);
        assert.equal((await shim("b", "check", "network", "https://github.com")).code, 1);
        const ran = await shim("a", "exec", "sh", "-c", 'echo "$0 $1"; exit 3', "x y", "z");
        assert.deepEqual([ran.code, ran.stdout], [3, "x y z\n"], ran.stderr);
        assert.equal((await shim("a", "exec", "touch", "/tmp/x")).code, 1);

        const waiting = shim("b", "request", "https://example.com/", "--reason", "docs", "--wait");
        await eventually(async () => /rr-/.test((await lab.cli("requests", "list")).stdout));
        const [id = ""] = /rr-[0-9a-f]{12}/.exec((await lab.cli("requests", "list")).stdout) ?? [];
        assert.match((await lab.cli("requests", "show", id)).stdout, /Agent: +b \(10\.200\.255\./);
        assert.equal((await lab.cli("requests", "approve", id, "--for", "1h")).code, 0);
        assert.equal((await waiting).code, 0);
        const curl = [
          "curl",
          "-s",
          "-o",
          "/dev/null",
          "-w",
          "%{http_code}",
          "https://example.com/",
        ];
        assert.equal((await run("--name", "b", "--", ...curl)).stdout, "200");
        assert.equal((await run("--name", "a", "--", ...curl)).stdout, "000");
      },
    );

    await t.step(
      "of the host's sockets and open files it has the agent socket alone",
      async () => {
        const look = "find /run -type s; ls /proc/self/fd; touch /run/outcall/x";
        const { stdout } = await host.run(
          ["bash", "-c", 'exec 7< /etc/passwd; exec outcall run -- sh -c "$0"', look],
        );
        assert.deepEqual(stdout.split("\n"), ["/run/outcall/agent.sock", "0", "1", "2", "3", ""]);
      },
    );

    await t.step("another agent's address in a namespace of its own is nobody (T-4)", async () => {
      const victim = host.spawn([
        ...["bash", "-c", 'echo $$; exec outcall run --name a -- sh -c "$0"'],
        "hostname -I; exec sleep 60",
      ]);
      const pid = Number(await victim.line("stdout", () => true));
      const address = (await victim.line("stdout", (line) => line.includes("."))).trim();
      assert.match(address, /^10\.200\.255\.\d+$/);
      const forge = `ip link set lo up; ip address add ${address}/24 dev lo
        curl -sS --unix-socket "$1" -X POST http://x/v1/checkin`;
      const unshare = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", forge, "sh"];
      const nobody = ["setpriv", "--reuid", "65532", "--regid", "65532", "--clear-groups"];
      for (
        const forger of [
          await host.run([...nobody, ...unshare, "/run/outcall/agent.sock"]),
          await run("--name", "b", "--", ...unshare, "/run/outcall/agent.sock"),
        ]
      ) assert.match(forger.stdout, /"code":"peer.forbidden"/, forger.stderr);
      await host.kill(pid, "TERM");
      await victim.ended;
      await gone();
    });

    await t.step("it outlives the daemon, which knows it again after a restart", async () => {
      const ask =
        "dig +short +time=1 +tries=1 github.com | grep -q '^[0-9]' && echo yes || echo no";
      const process = host.spawn([
        ...["bash", "-c", 'echo $$; exec outcall run --name a -- bash -c "$0"'],
        `while :; do ${ask}; sleep 0.1; done`,
      ]);
      const pid = Number(await process.line("stdout", () => true));
      await process.line("stdout", (line) => line === "yes");
      await daemon.kill();
      await process.line("stdout", (line) => line === "no");
      daemon = await lab.startDaemon();
      await process.line("stdout", (line) => line === "yes", process.stdout.length);
      await host.kill(pid, "KILL");
      await process.ended;
      await gone();
    });

    await t.step("without a daemon, or with a wrong request, nothing is started", async () => {
      const marker = "/var/lib/started";
      const start = ["--", "touch", marker];
      assert.match(
        (await run("--network", "nowhere", ...start)).stderr,
        /network "outcall-nowhere" does not exist/,
      );
      assert.match((await run("--name", "a b", ...start)).stderr, /agent name "a b" is not valid/);
      assert.equal((await run("-u", "0:0", ...start)).code, 2);
      await daemon.stop();
      assert.match((await run(...start)).stderr, /^error: daemon unreachable/);
      assert.notEqual((await host.run(["ls", marker])).code, 0);
      await gone();
    });
  },
);
