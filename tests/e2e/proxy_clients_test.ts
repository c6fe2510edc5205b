/** Programs as agents run them, in a real container, through the proxy of a real daemon. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { eventually } from "../eventually.ts";
import { CertificateAuthority } from "../lab/ca.ts";
import { proxyVariables } from "../lab/agent.ts";
import { recordedDecisions } from "../lab/decisions.ts";
import { importImage } from "../lab/dockerd.ts";
import { Lab } from "../lab/lab.ts";
import { denoCommand } from "../lab/product.ts";
import { labTest } from "../lab/requirements.ts";
import { nothing } from "../lab/witness.ts";
import { HTTP_PORT, HTTPS_PORT, NPM_PACKAGES } from "./origin/world.ts";

const TOOLS = [
  ...["nft", "ip", "iptables", "unshare", "nsenter", "dockerd", "docker", "python3"],
  ...["curl", "wget", "git", "node", "npm"],
];

const HOST = "example.org";
const HTTPS = `https://${HOST}:${HTTPS_PORT}`;
const HTTP = `http://${HOST}:${HTTP_PORT}`;
const GATEWAY = "10.200.255.1";
const IMAGE = "clients:1";
const ROOT_FILE = "/etc/ssl/certs/ca-certificates.crt";
/** As many as a package manager opens at once. */
const TUNNELS = 300;

const RULES = `version: "1"
rules:
  - id: allow-origin
    condition: 'http.host == "${HOST}"'
    action: allow
    egress: { ports: [${HTTP_PORT}, ${HTTPS_PORT}] }
`;

/** Node libraries that come with npm. */
const NPM_LIBRARIES = "/usr/lib/node_modules/npm/node_modules";
const PROXY_AGENT = `const { HttpsProxyAgent } = require("${NPM_LIBRARIES}/https-proxy-agent");
const agent = new HttpsProxyAgent(process.env.HTTPS_PROXY);
const https = require("https");
const get = (path) => new Promise((resolve, reject) => {
  https.get("${HTTPS}" + path, { agent }, (response) => {
    let text = "";
    response.on("data", (piece) => text += piece).on("end", () => resolve(text));
  }).on("error", reject);
});`;

/** Has apt read a repository of ours, with everything it writes in /tmp. */
function aptUpdate(base: string): string {
  return `
mkdir -p /tmp/apt/etc /tmp/apt/lists/partial /tmp/apt/cache/archives/partial
echo "deb [trusted=yes] ${base}/apt/ ./" > /tmp/apt/etc/sources.list
OPTIONS="-o Dir::Etc=/tmp/apt/etc -o Dir::State=/tmp/apt -o Dir::Cache=/tmp/apt/cache"
OPTIONS="$OPTIONS -o Dir::State::status=/dev/null -o APT::Sandbox::User=root -o Acquire::Retries=0"
OPTIONS="$OPTIONS -o APT::Architecture=amd64 -o APT::Update::Error-Mode=any"
apt-get $OPTIONS update`;
}

/** What is typed in the container, and what it prints when all is well. */
const CLIENTS: readonly (readonly [name: string, argv: readonly string[], printed: RegExp])[] = [
  [
    "curl, HTTP/1.1 inside the tunnel",
    ["curl", "-sS", "--http1.1", "-w", " %{http_version}", `${HTTPS}/curl`],
    /^hello \/curl 1\.1$/,
  ],
  [
    "curl, HTTP/2 inside the tunnel",
    ["curl", "-sS", "--http2", "-w", " %{http_version}", `${HTTPS}/curl`],
    /^hello \/curl 2$/,
  ],
  ["curl, plain HTTP", ["curl", "-sS", `${HTTP}/plain`], /^hello \/plain$/],
  ["wget", ["wget", "-q", "-O", "-", `${HTTPS}/wget`], /^hello \/wget$/],
  [
    "git clone",
    ["bash", "-c", `git clone -q ${HTTPS}/repository.git /tmp/clone && cat /tmp/clone/README`],
    /^a repository\n$/,
  ],
  [
    "npm install, every package at once",
    [
      "bash",
      "-c",
      `cd /tmp && mkdir project && cd project && npm install --registry ${HTTPS}/npm/ ` +
      "--no-audit --no-fund --no-update-notifier --loglevel error --maxsockets 300 all && " +
      "ls node_modules | wc -l",
    ],
    new RegExp(`(^|\\n)${NPM_PACKAGES.length + 1}\\n$`),
  ],
  [
    "pip install",
    [
      "bash",
      "-c",
      "/usr/bin/python3 -m pip install -q --no-cache-dir --disable-pip-version-check " +
      `--break-system-packages --target /tmp/site --cert ${ROOT_FILE} -i ${HTTPS}/pip/ wheelhouse && ` +
      "PYTHONPATH=/tmp/site /usr/bin/python3 -c 'import wheelhouse; print(wheelhouse.VERSION)'",
    ],
    /^1\.0\n$/,
  ],
  [
    "apt-get update (S015-AS-004)",
    ["bash", "-c", `${aptUpdate(HTTP)} && apt-cache $OPTIONS policy wheelhouse | grep Candidate`],
    /Candidate: 1\.0\n$/,
  ],
  [
    "Python's urllib",
    [
      "/usr/bin/python3",
      "-c",
      `import urllib.request as u; print(u.urlopen("${HTTPS}/urllib").read().decode())`,
    ],
    /^hello \/urllib\n$/,
  ],
  [
    "Python's requests",
    [
      "/usr/bin/python3",
      "-c",
      `from pip._vendor import requests as r; print(r.get("${HTTPS}/requests", verify="${ROOT_FILE}").text)`,
    ],
    /^hello \/requests\n$/,
  ],
  [
    "Python's requests, plain HTTP, twice by one connection",
    [
      "/usr/bin/python3",
      "-c",
      `from pip._vendor import requests as r; s = r.Session(); ` +
      `print(s.get("${HTTP}/one").text, s.post("${HTTP}/upload", data=b"x" * 100).text)`,
    ],
    /^hello \/one 100 bytes\n$/,
  ],
  [
    "Node's https with a proxy agent",
    [
      "node",
      "-e",
      `${PROXY_AGENT} get("/node").then((text) => { console.log(text); process.exit(); })`,
    ],
    /^hello \/node\n$/,
  ],
  [
    "Node's fetch (undici)",
    [
      "node",
      "-e",
      `const { fetch, ProxyAgent } = require("${NPM_LIBRARIES}/undici");
       fetch("${HTTPS}/fetch", { dispatcher: new ProxyAgent(process.env.HTTPS_PROXY) })
         .then((response) => response.text()).then((text) => { console.log(text); process.exit(); })`,
    ],
    /^hello \/fetch\n$/,
  ],
  [
    "Node's fetch (undici), plain HTTP",
    [
      "node",
      "-e",
      `const { fetch, ProxyAgent } = require("${NPM_LIBRARIES}/undici");
       const uri = process.env.HTTP_PROXY;
       fetch("${HTTP}/fetch", { dispatcher: new ProxyAgent({ uri, proxyTunnel: false }) })
         .then((response) => response.text()).then((text) => { console.log(text); process.exit(); })`,
    ],
    /^hello \/fetch\n$/,
  ],
  [
    "a WebSocket inside a tunnel (undici)",
    [
      "node",
      "-e",
      `const { WebSocket, ProxyAgent } = require("${NPM_LIBRARIES}/undici");
       const socket = new WebSocket("${HTTPS.replace("https", "wss")}/socket",
         { dispatcher: new ProxyAgent(process.env.HTTPS_PROXY) });
       socket.onopen = () => socket.send("hello");
       socket.onmessage = ({ data }) => { console.log(data); process.exit(); };
       socket.onerror = ({ error }) => { console.log(error); process.exit(1); }`,
    ],
    /^echo hello\n$/,
  ],
  [
    "a WebSocket by plain HTTP (Deno)",
    [
      "/deno",
      "eval",
      `const socket = new WebSocket("${HTTP.replace("http", "ws")}/socket");
       socket.onopen = () => socket.send("hello");
       socket.onmessage = ({ data }) => { console.log(data); Deno.exit(); };
       socket.onerror = ({ message }) => { console.log(message); Deno.exit(1); }`,
    ],
    /^echo hello\n$/,
  ],
];

labTest("real clients in a real container work through the proxy", { tools: TOOLS }, async (t) => {
  await using lab = await Lab.create({ docker: true });
  const { engine, host, internet } = lab;
  assert.ok(engine !== null);

  const authority = await CertificateAuthority.create();
  const { cert, key } = await authority.leaf(HOST);
  await internet.machine.write("/etc/origin/cert.pem", cert);
  await internet.machine.write("/etc/origin/key.pem", key);
  await internet.machine.must(["bash", "-c", MAKE_REPOSITORY], {
    env: { GIT_CONFIG_NOSYSTEM: "1", HOME: "/run/lab" },
  });
  const origin = internet.machine.spawn([
    ...denoCommand(new URL("./origin/main.ts", import.meta.url)),
    ...["/etc/origin/cert.pem", "/etc/origin/key.pem", "/run/lab/repository.git"],
  ]);
  await origin.line("stdout", (line) => line === "ready");

  await lab.startDaemon({ rules: { "clients.yaml": RULES } });
  await importImage(host.path("/run/docker.sock"), IMAGE, ["bash"], {
    [ROOT_FILE]: authority.rootPem,
  });
  // The programs are this machine's own, so that none is an old copy: /usr is mounted as it is.
  await engine.must([
    ...["run", "-d", "--name", "agent", "--network", "outcall-default", "--dns", GATEWAY],
    ...["-v", "/usr:/usr:ro", "-v", `${Deno.execPath()}:/deno:ro`, "--tmpfs", "/tmp:exec"],
    ...Object.entries({
      ...proxyVariables(GATEWAY),
      HOME: "/tmp",
      NODE_EXTRA_CA_CERTS: ROOT_FILE,
      DENO_NO_UPDATE_CHECK: "1",
      NO_COLOR: "1",
    }).flatMap(([name, value]) => ["-e", `${name}=${value}`]),
    ...[IMAGE, "sleep", "infinity"],
  ]);
  const inside = (argv: readonly string[]): ReturnType<typeof engine.docker> =>
    engine.docker(["exec", "agent", ...argv], { timeoutMs: 60_000 });

  for (const [name, argv, printed] of CLIENTS) {
    await t.step(name, async () => {
      const asked = origin.stdout.length;
      const { stdout, stderr, code } = await inside(argv);
      assert.match(stdout, printed, stderr);
      assert.equal(code, 0, stderr);
      assert.ok(origin.stdout.length > asked, "nothing reached the origin");
    });
  }

  await t.step(
    "packet captures on both sides: inside a tunnel the bytes are the client's own",
    async () => {
      const script = fileURLToPath(new URL("./origin/capture.py", import.meta.url));
      const pid = (await engine.must(["inspect", "-f", "{{.State.Pid}}", "agent"])).trim();
      const before = host.spawn([
        ...[
          "nsenter",
          "--target",
          pid,
          "--net",
          "/usr/bin/python3",
          script,
          "eth0",
          "8080",
          "proxied",
        ],
      ]);
      const behind = internet.machine.spawn([
        ...["/usr/bin/python3", script, "host0", `${HTTPS_PORT}`, "direct"],
      ]);
      for (const one of [before, behind]) await one.line("stdout", (line) => line === "ready");
      const { stdout, stderr } = await inside(
        ["curl", "-sS", "--http1.1", "--data-binary", "@/usr/bin/wget", `${HTTPS}/upload`],
      );
      assert.match(stdout, /^[0-9]{6} bytes$/, stderr);
      const [seenBefore, seenBehind] = await Promise.all(
        [before, behind].map((one) => one.line("stdout", (line) => line.startsWith("{"))),
      );
      assert.equal(seenBefore, seenBehind);
      assert.match(seenBefore ?? "", /"up": \{"bytes": [0-9]{6,}, /);
    },
  );

  await t.step(`${TUNNELS} tunnels at the same time, each seen in the proxy's status`, async () => {
    const calls = `Promise.all(Array.from({ length: ${TUNNELS} }, () => get("/barrier/${
      TUNNELS + 1
    }"))).then((all) => { console.log(all.length); process.exit(); })`;
    const running = inside(["node", "-e", `${PROXY_AGENT} ${calls}`]);
    const at = origin.stdout.length;
    await origin.line("stdout", (line) => line.includes("/barrier/"), at);
    const expected = new RegExp(`^Tunnels: +agent \\(10\\.200\\.255\\.\\d+\\) ${TUNNELS}$`, "m");
    for (let polls = 0;; polls++) {
      const { stdout } = await lab.cli("proxy", "status");
      if (expected.test(stdout)) break;
      assert.ok(polls < 100, stdout);
    }
    await inside(["curl", "-sS", `${HTTPS}/barrier/${TUNNELS + 1}`]); // the last one lets all go
    assert.equal((await running).stdout, `${TUNNELS}\n`);
  });

  await t.step("what is not allowed is not reached, by apt either (S015-AS-005)", async () => {
    const mark = await lab.witness.mark();
    const { code, stderr } = await inside(["bash", "-c", aptUpdate("http://example.com")]);
    assert.notEqual(code, 0);
    assert.match(stderr, /403/);
    assert.ok(nothing(await lab.witness.since(mark, { name: "example.com" })));
  });

  await t.step("what is not allowed is not reached, by the same clients", async () => {
    const asked = origin.stdout.length;
    const { stdout, code } = await inside(
      ["curl", "-sS", "-w", "%{http_connect}", `https://example.com:${HTTPS_PORT}/`],
    );
    assert.equal(stdout, "403");
    assert.notEqual(code, 0);
    assert.equal(origin.stdout.length, asked);
    await eventually(async () => {
      const last = (await recordedDecisions(lab)).at(-1);
      return `${last?.verdict} ${last?.layer} ${last?.agent?.name}` === "block connect agent";
    });
  });

  await t.step("tunnels end with their container", async () => {
    const endless = `require("net"); ${PROXY_AGENT} get("/barrier/1000000")`;
    void inside(["node", "-e", endless]);
    await origin.line("stdout", (line) => line.includes("/barrier/1000000"));
    await eventually(async () =>
      /^Tunnels: +agent .* 1$/m.test((await lab.cli("proxy", "status")).stdout)
    );
    await engine.must(["kill", "agent"]);
    for (let polls = 0; /^Tunnels:/m.test((await lab.cli("proxy", "status")).stdout); polls++) {
      assert.ok(polls < 50, "the tunnel outlives its container");
    }
  });
});

const MAKE_REPOSITORY = `
set -e
cd /run/lab && git init -q work && cd work
echo 'a repository' > README
git add README
git -c user.name=lab -c user.email=lab@example.com commit -q -m 'one file'
git clone -q --bare . ../repository.git
cd ../repository.git && git update-server-info
`;
