/**
 * How the daemon stops: what agents have under way may end, everybody sees an end, and the ports are
 * not given up before the firewall is closed (S006-FR-015, S006-EC-013, S006-AS-009, decision D2).
 */
import assert from "node:assert/strict";
import { eventually } from "../eventually.ts";
import { EXAMPLE_ADDRESS } from "../lab/internet/world.ts";
import { Lab } from "../lab/lab.ts";
import { labTest } from "../lab/requirements.ts";

const TOOLS = ["nft", "ip", "unshare", "nsenter", "curl", "python3"];

const GATEWAY = "10.200.255.1";
const SLOW_PORT = 8081;

const RULES = `version: "1"
rules:
  - id: slow
    condition: 'http.host == "example.com" && network.port == ${SLOW_PORT}'
    action: allow
  - id: echo
    condition: 'http.host == "example.com" && network.port == 7'
    action: allow
    egress: { tls: any }
`;

/** Answers each request with half a body, and with the rest when a line comes on standard input. */
const SLOW_SERVER = `
import socket, sys, threading
release = threading.Event()
def serve(conn):
    conn.recv(65536)
    conn.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 20\\r\\n\\r\\nfirst half")
    release.wait()
    conn.sendall(b"other half")
server = socket.create_server((sys.argv[1], ${SLOW_PORT}))
print("listening", flush=True)
def accept():
    while True:
        threading.Thread(target=serve, args=[server.accept()[0]], daemon=True).start()
threading.Thread(target=accept, daemon=True).start()
sys.stdin.readline()
release.set()
sys.stdin.readline()
`;

/** Opens a tunnel, has one line echoed, and tells how the tunnel ended. */
const TUNNEL = `
import socket
conn = socket.create_connection(("${GATEWAY}", 8080), 5)
conn.sendall(b"CONNECT example.com:7 HTTP/1.1\\r\\nHost: example.com:7\\r\\n\\r\\n")
while not conn.recv(100).endswith(b"\\r\\n\\r\\n"): pass
conn.sendall(b"line\\n")
print(conn.recv(100).decode().strip(), flush=True)
conn.settimeout(60)
try:
    print("ended" if conn.recv(100) == b"" else "more", flush=True)
except ConnectionResetError:
    print("ended", flush=True)
`;

/** Takes the proxy's port as soon as it is free, and names everybody who comes. */
const SQUATTER = `
import socket, time
while True:
    try:
        server = socket.create_server(("${GATEWAY}", 8080))
        break
    except OSError:
        time.sleep(0.001)
print("taken", flush=True)
while True:
    print(server.accept()[1][0], flush=True)
`;

/** Comes to the proxy's port over and over. */
const KNOCK = `
import socket
while True:
    try:
        socket.create_connection(("${GATEWAY}", 8080), 0.2).close()
    except OSError:
        pass
    print("knocked", flush=True)
`;

labTest(
  "a second daemon is refused; SIGTERM: a response under way arrives, tunnels end, who comes new is told so, and nobody else gets the port while it is open",
  {
    tools: TOOLS,
  },
  async () => {
    await using lab = await Lab.create({ docker: false });
    const daemon = await lab.startDaemon({ rules: { "stop.yaml": RULES } });
    const agent = await lab.agent();
    const server = lab.internet.machine.spawn(["python3", "-c", SLOW_SERVER, EXAMPLE_ADDRESS]);
    await server.line("stdout", (line) => line === "listening");

    const tunnel = agent.spawn(["python3", "-c", TUNNEL]);
    await tunnel.line("stdout", (line) => line === "line");
    const proxied = ["curl", "-sS", "-m", "20", "-x", `http://${GATEWAY}:8080`];
    const url = `http://example.com:${SLOW_PORT}/`;
    const response = agent.run([...proxied, url]);
    const status = async (): Promise<string> =>
      (await agent.run([
        ...proxied,
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "http://example.com/",
      ]))
        .stdout;
    await eventually(async () => (await lab.cli("proxy", "status")).stdout.includes("2 total"));
    assert.equal(await status(), "403");
    const second = await lab.host.run([
      ...["outcalld", "--socket", "/tmp/second.sock", "--agent-socket", "/tmp/second-agent.sock"],
      ...["--bridge", "second0", "--state-dir", "/tmp/second"],
    ]);
    assert.equal(second.code, 1);
    assert.match(second.stderr, /another outcalld has the firewall of this host/);
    assert.ok(
      !daemon.log.some((line) => line.includes("was changed")),
      "a second one touches nothing",
    );
    const squatter = lab.host.spawn(["python3", "-c", SQUATTER]);
    const knock = agent.spawn(["python3", "-c", KNOCK]);

    const stopped = daemon.stop();
    await eventually(async () => await status() === "503");
    await server.tell("go on");
    assert.equal((await response).stdout, "first halfother half");
    assert.equal(await stopped, 0);
    await tunnel.line("stdout", (line) => line === "ended");

    await squatter.line("stdout", (line) => line === "taken");
    const knocked = knock.stdout.length;
    await eventually(() => knock.stdout.length > knocked + 3);
    // The control: it serves whoever gets to it, which is the host alone.
    await lab.host.must(["curl", "-m", "1", `http://${GATEWAY}:8080/`]).catch(() => {});
    await eventually(() => squatter.stdout.length > 1);
    assert.deepEqual(squatter.stdout.slice(1), [GATEWAY]);
  },
);
