/** Whoever talks to the daemon's sockets by hand, request by request over one connection. */
import { z } from "zod";
import type { Finished } from "./process.ts";

/** Whatever can run a program. */
export interface Client {
  run(argv: readonly string[]): Promise<Finished>;
}

/** One request as it is sent. */
export interface RawRequest {
  readonly method?: "GET" | "POST" | "DELETE";
  readonly path: string;
  /** Sent as JSON, with its type. */
  readonly body?: unknown;
  /** Sent as it is, instead of `body`. */
  readonly raw?: string;
  /** Bytes of `x` as the body, instead of both. */
  readonly bytes?: number;
  readonly headers?: Readonly<Record<string, string>>;
}

const answer = z.object({
  status: z.number(),
  headers: z.record(z.string(), z.string()),
  text: z.string(),
});

/** What came back. Header names are in lower case. */
export type RawAnswer = z.infer<typeof answer>;

/** One connection for all; what comes after the server hung up fails. */
const PROGRAM = `
import http.client, json, socket, sys

class Unix(http.client.HTTPConnection):
    def connect(self):
        if self.sock is not None:
            raise SystemExit("the server hung up")
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(sys.argv[1])

unix, answers = Unix("localhost"), []
for each in json.loads(sys.argv[2]):
    headers = dict(each.get("headers", {}))
    body = each.get("raw")
    if "bytes" in each:
        body = "x" * each["bytes"]
    if "body" in each:
        body = json.dumps(each["body"])
    if body is not None:
        headers.setdefault("Content-Type", "application/json")
    unix.request(each.get("method", "POST"), each["path"], body, headers)
    reply = unix.getresponse()
    named = {name.lower(): value for name, value in reply.getheaders()}
    answers.append({"status": reply.status, "headers": named, "text": reply.read().decode()})
print(json.dumps(answers))
`;

/** Sends requests one after the other over one connection, in the agent's place. */
export async function converse(
  client: Client,
  requests: readonly RawRequest[],
  socketPath = "/run/outcall/agent.sock",
): Promise<RawAnswer[]> {
  const { code, stdout, stderr } = await client.run([
    ...["python3", "-c", PROGRAM, socketPath, JSON.stringify(requests)],
  ]);
  if (code !== 0) throw new Error(`the conversation failed: ${stderr}`);
  return z.array(answer).parse(JSON.parse(stdout));
}

/** Checks in; the session's token as a header. */
export async function checkIn(client: Client): Promise<Readonly<Record<string, string>>> {
  const [checkedIn] = await converse(client, [{ path: "/v1/checkin" }]);
  const { session_token: token } = z.object({ session_token: z.string() })
    .parse(JSON.parse(checkedIn?.text ?? ""));
  return { Authorization: `Bearer ${token}` };
}
