/**
 * The way from an operator's yes to the agent's access and back: how soon the same curl that was
 * refused works, and how soon an open tunnel is cut when its time is over.
 */
import { Lab } from "../lab/lab.ts";
import { installShim } from "../lab/shim.ts";

const ROUNDS = 5;
const GRANT_SECS = 3;

/** One clock for host and agent: both are processes of this machine. */
const ASK = `
outcall-agent request "$0" --wait > /dev/null || exit 1
until curl -s -o /dev/null "$0"; do :; done
date +%s%3N`;

/** Holds a tunnel open, and says when it ended. */
const HOLD = `
import os, socket, ssl, sys, time, urllib.parse
proxy = urllib.parse.urlparse(os.environ["https_proxy"])
raw = socket.create_connection((proxy.hostname, proxy.port))
host = sys.argv[1]
raw.sendall(f"CONNECT {host}:443 HTTP/1.1\\r\\nHost: {host}:443\\r\\n\\r\\n".encode())
raw.recv(4096)
tls = ssl._create_unverified_context().wrap_socket(raw, server_hostname=host)
print("open", flush=True)
try:
    tls.recv(1)
except OSError:
    pass
print(int(time.time() * 1000))
`;

/** Milliseconds, one figure a round. */
export interface LoopTimes {
  /** From the approval's sending to the end of the agent's first successful curl. */
  readonly approvedToReached: readonly number[];
  /** From the end of the grant to the end of the tunnel. */
  readonly expiredToCut: readonly number[];
}

/** Measures both in a lab of its own. */
export async function measureLoop(): Promise<LoopTimes> {
  await using lab = await Lab.create({ docker: false });
  const { host } = lab;
  await host.trust(lab.internet.rootPem);
  await installShim(host);
  await lab.startDaemon({ rules: {} });
  const times = { approvedToReached: [] as number[], expiredToCut: [] as number[] };
  for (let round = 0; round < ROUNDS; round++) {
    const name = `w${"abcdefgh"[round]}`;
    const run = (...argv: readonly string[]): ReturnType<typeof host.spawn> =>
      host.spawn(["outcall", "run", "--name", name, "--", ...argv]);
    const asking = run("bash", "-c", ASK, "https://example.com/");
    let id: string | undefined;
    while (id === undefined) {
      id = /rr-[0-9a-f]{12}/.exec((await lab.cli("requests", "list")).stdout)?.[0];
    }
    const approvedMs = Date.now();
    await lab.api("POST", `/api/v1/requests/rules/${id}/approve`, { for_secs: GRANT_SECS });
    const reachedMs = Number(await asking.line("stdout", () => true));
    times.approvedToReached.push(reachedMs - approvedMs);
    const tunnel = run("/usr/bin/python3", "-c", HOLD, "example.com");
    await tunnel.line("stdout", (line) => line === "open");
    const cutMs = Number(await tunnel.line("stdout", (line) => /^\d+$/.test(line)));
    const shown = await lab.api("GET", `/api/v1/requests/rules/${id}`);
    const end = /"expires_at":"([^"]+)"/.exec(JSON.stringify(shown.body))?.[1] ?? "";
    times.expiredToCut.push(cutMs - Date.parse(end));
  }
  return times;
}
