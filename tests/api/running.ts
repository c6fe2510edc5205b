/** A host API on a real Unix socket, for one test. */
import { hostApp } from "../../lib/api/host.ts";
import type { HostServices } from "../../lib/api/services.ts";
import { serveUnix, type UnixServer, type UnixServerOptions } from "../../lib/api/unix_server.ts";
import { type Answers, healthy, type Journal, services } from "./services.ts";
import { request } from "node:http";

/** A running API and what it was asked. */
export interface Running extends Journal {
  readonly path: string;
  readonly directory: string;
  readonly answers: Answers;
}

/** Serves the host API at `path` to whoever connects. */
export function serveHost(
  path: string,
  served: HostServices,
  options: Partial<UnixServerOptions> = {},
): Promise<UnixServer> {
  const { fetch } = hostApp(served);
  return serveUnix({ path, mode: 0o600, fetch, admit: () => {}, target: "host_api", ...options });
}

/** Runs `test` against a served API, and removes everything afterwards. */
export async function withHostApi(
  test: (running: Running) => Promise<void>,
  options: Partial<UnixServerOptions> = {},
): Promise<void> {
  await withDirectory(async (directory) => {
    const path = `${directory}/host.sock`;
    const answers = healthy();
    const calls: unknown[][] = [];
    const server = await serveHost(path, services(answers, { calls }), options);
    try {
      await test({ path, directory, answers, calls });
    } finally {
      await server.close();
    }
  });
}

/** Runs `test` with a directory of its own. */
export async function withDirectory(test: (directory: string) => Promise<void>): Promise<void> {
  const directory = Deno.makeTempDirSync({ prefix: "outcall-api-" });
  try {
    await test(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

/** What came back. */
export interface Reply {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
  readonly json: unknown;
}

/** Sends one request as written, without the client under test. */
export function send(
  socketPath: string,
  method: string,
  path: string,
  options: { body?: string | Uint8Array; headers?: Record<string, string> } = {},
): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const outgoing = request(
      { socketPath, method, path, agent: false, headers: options.headers ?? {} },
      (response) => {
        let text = "";
        response.setEncoding("utf8");
        response.on("data", (chunk: string) => text += chunk);
        response.on("end", () => {
          let json: unknown = null;
          try {
            json = JSON.parse(text);
          } catch {
            // Not every reply is one JSON value.
          }
          resolve({ status: response.statusCode ?? 0, headers: response.headers, text, json });
        });
        response.on("error", reject);
      },
    );
    outgoing.on("error", reject);
    outgoing.end(options.body);
  });
}

/** Sends `body` as JSON. */
export function post(socketPath: string, path: string, body?: unknown): Promise<Reply> {
  return body === undefined ? send(socketPath, "POST", path) : send(socketPath, "POST", path, {
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json" },
  });
}
