import { deepEqual, equal, match } from "node:assert/strict";
import { createServer } from "node:net";
import { AGENT_NET, OPENAI } from "../api/services.ts";
import { withDirectory, withHostApi } from "../api/running.ts";
import { outcall, program } from "./outcall.ts";
import manifest from "../../deno.json" with { type: "json" };

Deno.test("--socket is found anywhere on the line", () =>
  withHostApi(async ({ path }) => {
    for (
      const args of [
        ["--socket", path, "bridge", "status"],
        ["bridge", "--socket", path, "status"],
        ["bridge", "status", "--socket", path],
        ["bridge", "status", `--socket=${path}`],
      ]
    ) {
      equal((await outcall(...args)).code, 0, args.join(" "));
    }
    const other = await outcall("container", "inspect", "--name", "x", "--socket", path);
    equal(other.err, 'error: container "x" does not exist\n');
  }));

Deno.test("--json prints the API's reply on one line, for every command (D18)", () =>
  withHostApi(async ({ path }) => {
    const json = async (...args: string[]): Promise<unknown> => {
      const outcome = await outcall(...args, "--json", "--socket", path);
      equal(outcome.code, 0, args.join(" "));
      equal(outcome.out.split("\n").length, 2, args.join(" "));
      return JSON.parse(outcome.out);
    };
    const bridge = await outcall("bridge", "status", "--json", "--socket", path);
    equal(
      bridge.out,
      '{"ok":true,"name":"outcall0","up":true,"index":12,"nftables":"active"}\n',
    );
    deepEqual(await json("bridge", "up"), { ok: true });
    deepEqual(await json("rules", "list"), { ok: true, rules: [OPENAI] });
    deepEqual(await json("network", "list"), { ok: true, networks: [AGENT_NET] });
    deepEqual(await json("dns", "flush"), { ok: true, entries_flushed: 7 });
    deepEqual(await json("container", "pull", "--image", "x"), {
      ok: true,
      image: "x",
      pulled: true,
    });
    for (
      const line of [
        "dns status",
        "dns test example.com",
        "dns cache --entries",
        "proxy status",
        "network create",
        "network status",
        "network destroy",
        "container create --image x",
        "container list",
        "container inspect --name outcall-a3f7b201",
        "container stop --name x",
        "container remove --name x",
        "rules reload",
        "rules show allow-openai",
        "rules counters",
        "rules explain --dns example.com",
        "rules test --expr true",
      ]
    ) {
      equal(Reflect.get(Object(await json(...line.split(" "))), "ok"), true, line);
    }
  }));

Deno.test("a refusal is an error line and a hint on stderr, exit 1", () =>
  withHostApi(async ({ path }) => {
    deepEqual(await outcall("bridge", "down", "--socket", path), {
      code: 1,
      out: "",
      err: "error: containers are attached: my-agent\nhint: Stop them first.\n",
    });
    const json = await outcall("bridge", "down", "--json", "--socket", path);
    equal(json.code, 1);
    deepEqual(JSON.parse(json.out), {
      ok: false,
      error: "containers are attached: my-agent",
      code: "bridge.busy",
      hint: "Stop them first.",
    });
  }));

Deno.test("a reload that fails names every place", () =>
  withHostApi(async ({ path, answers }) => {
    answers.reloadFails = true;
    deepEqual(await outcall("rules", "reload", "--socket", path), {
      code: 1,
      out: "",
      err:
        `error: /etc/outcall/rules.d/agent.yaml:5: CEL parse error: undefined identifier 'http_host'
  /etc/outcall/rules.d/z.yaml:1:1: version is missing
hint: The rules loaded before stay in force.
`,
    });
  }));

Deno.test("without a daemon: the guide's message, a hint, exit 1 (D19, S001-EC-006)", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/host.sock`;
    deepEqual(await outcall("bridge", "status", "--socket", path), {
      code: 1,
      out: "",
      err: `error: daemon unreachable (${path}: No such file or directory)
hint: Is outcalld running? Start it, or name its socket with --socket <path>.
`,
    });
    Deno.writeTextFileSync(path, "");
    match(
      (await outcall("bridge", "status", "--socket", path)).err,
      /^error: daemon unreachable \(.*: Connection refused\)\nhint: /,
    );
    match(
      (await outcall("bridge", "status", "--socket", `${path}/x`)).err,
      /^error: daemon unreachable \(.*: Not a directory\)\nhint: /,
    );
  }));

Deno.test("a server that is no outcalld is told apart from one that is away", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/host.sock`;
    const server = createServer((socket) => {
      socket.on("error", () => {});
      socket.resume();
      socket.end("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    try {
      const outcome = await outcall("bridge", "status", "--socket", path);
      equal(outcome.code, 1);
      match(outcome.err, /^error: the reply from .* cannot be read: not JSON\n/);
    } finally {
      await new Promise<void>((resolve) => server.close(() => resolve()));
    }
  }));

Deno.test("no command: what to run first, exit 0", async () => {
  const outcome = await outcall();
  equal(outcome.code, 0);
  match(outcome.out, /^Outcall decides [\s\S]*outcall bridge status/);
  equal(outcome.err, "");
});

Deno.test("--version and -V print the version of the package", async () => {
  const expected = { code: 0, out: `outcall ${manifest.version}\n`, err: "" };
  deepEqual(await outcall("--version"), expected);
  deepEqual(await outcall("-V"), expected);
});

Deno.test("--help prints to stdout and exits 0, with the global options everywhere", async () => {
  for (const args of [["--help"], ["bridge", "--help"], ["dns", "cache", "-h"]]) {
    const outcome = await outcall(...args);
    equal(outcome.code, 0);
    match(outcome.out, /--socket <path>/);
    equal(outcome.err, "");
  }
});

for (
  const [line, message] of [
    ["frobnicate", "unknown command 'frobnicate'"],
    ["brige", "unknown command 'brige'"],
    ["bridge frob", "unknown command 'frob'"],
    ["bridge status extra", "too many arguments"],
    ["bridge status --jsn", "unknown option '--jsn'"],
    ["bridge --socket", "option '--socket <path>' argument missing"],
    ["dns test", "missing required argument 'hostname'"],
    ["container create", "required option '--image <ref>' not specified"],
    ["container inspect", "required option '--name <name>' not specified"],
    ["container create --image x --memory 256q", "'256q' is invalid"],
    ["container create --image x --memory 99999999999g", "is invalid"],
    ["container create --image x --cpu-shares 1", "'1' is invalid"],
    ["container stop --name x --timeout 301", "'301' is invalid"],
    ["container stop --name x --timeout 5s", "'5s' is invalid"],
    ["completion tcsh", "Allowed choices are bash, zsh, fish"],
  ] as const
) {
  Deno.test(`\`outcall ${line}\` is a usage error: exit 2, the reason on stderr`, async () => {
    const outcome = await outcall(...line.split(" "));
    equal(outcome.code, 2);
    equal(outcome.out, "");
    equal(outcome.err.startsWith("error: ") && outcome.err.includes(message), true, outcome.err);
  });
}

Deno.test("a group without a command shows its commands, exit 2", async () => {
  const outcome = await outcall("network");
  equal(outcome.code, 2);
  match(outcome.err, /Commands:[\s\S]*destroy/);
});

Deno.test("a reader that goes away early is not an error", () =>
  withHostApi(async ({ path, answers }) => {
    answers.rules = Array.from({ length: 5_000 }, (_, i) => ({ ...OPENAI, id: `rule-${i}` }));
    const cli = new URL("../../cli.ts", import.meta.url).pathname;
    const shell = new Deno.Command("sh", {
      args: ["-c", '"$@" | head -n 1; true', "sh", Deno.execPath(), "run", "-A", cli]
        .concat(["rules", "list", "--socket", path]),
    });
    const { stdout, stderr } = await shell.output();
    match(new TextDecoder().decode(stdout), /^ID +FILE +ACTION +CONDITION\n$/);
    equal(new TextDecoder().decode(stderr), "");
  }));

Deno.test("the shim runs nothing without a daemon, and answers only for itself (S004-EC-001, D19)", async () => {
  const shim = new URL("../../shim.ts", import.meta.url).pathname;
  for (const args of [["curl", "https://example.com"], ["git", "--version"], ["exec", "echo"]]) {
    const outcome = await program(shim, args);
    equal(outcome.code, 5, args.join(" "));
    match(
      outcome.err,
      /^error: agent socket not found at \/run\/outcall\/agent\.sock -- is outcalld running\?\n/,
    );
    equal(outcome.out, "");
  }
  equal((await program(shim, [])).code, 2);
  equal((await program(shim, ["--version"])).out, `outcall-agent ${manifest.version}\n`);
  equal((await program(shim, ["--help"])).code, 0);
});
