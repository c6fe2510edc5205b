/** Real clients and a real HTTP server around the proxy. */
import assert from "node:assert/strict";
import * as http from "node:http";
import { Buffer } from "node:buffer";
import { type AddressInfo } from "node:net";
import { CertificateAuthority } from "../lab/ca.ts";
import { labTest } from "../lab/requirements.ts";
import { Lab } from "./support.ts";

interface CurlResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs curl through the proxy on `port`, with nothing of the environment's proxy settings. */
async function curl(port: number, ...args: string[]): Promise<CurlResult> {
  const { code, stdout, stderr } = await new Deno.Command("curl", {
    args: [
      "-sS",
      "--max-time",
      "20",
      "--proxy",
      `http://127.0.0.1:${port}`,
      "--noproxy",
      "",
      ...args,
    ],
    clearEnv: true,
    stdout: "piped",
    stderr: "piped",
  }).output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

labTest("curl: HTTPS by HTTP/1.1 and HTTP/2 through a tunnel, and 403 for the rest", {
  tools: ["curl"],
}, async () => {
  const authority = await CertificateAuthority.create();
  const { cert, key } = await authority.leaf("api.example");
  const file = await Deno.makeTempFile({ prefix: "outcall-proxy-", suffix: ".pem" });
  await Deno.writeTextFile(file, authority.rootPem);
  const seen: string[] = [];
  const server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, cert, key, onListen: () => {} },
    async (request) => {
      const body = await request.text();
      seen.push(`${request.method} ${new URL(request.url).pathname} ${body.length}`);
      return new Response(`answer to ${body.length}`, { status: 401 });
    },
  );
  try {
    await using lab = await Lab.start({
      rules: [{
        condition: 'http.host == "api.example"',
        egress: `allow_private_ips: true, ports: [${server.addr.port}]`,
      }],
    });
    const url = `https://api.example:${server.addr.port}/v1/models`;
    for (const version of ["--http1.1", "--http2"]) {
      const result = await curl(
        lab.port,
        version,
        "--cacert",
        file,
        "-w",
        " %{http_code} %{http_version}",
        url,
      );
      assert.equal(
        result.stdout,
        `answer to 0 401 ${version === "--http2" ? "2" : "1.1"}`,
        result.stderr,
      );
    }
    const upload = await curl(
      lab.port,
      "--cacert",
      file,
      "--data-binary",
      "x".repeat(100_000),
      url,
    );
    assert.equal(upload.stdout, "answer to 100000", upload.stderr);
    assert.deepEqual(seen, ["GET /v1/models 0", "GET /v1/models 0", "POST /v1/models 100000"]);

    const other = await curl(
      lab.port,
      "-w",
      "%{http_connect}",
      `https://other.example:${server.addr.port}/`,
    );
    assert.equal(other.code, 56, other.stderr);
    assert.equal(other.stdout, "403");
    // The tunnel is for api.example, whatever name the client says inside it.
    const fronted = await curl(
      lab.port,
      "--cacert",
      file,
      "--connect-to",
      `other.example:${server.addr.port}:api.example:${server.addr.port}`,
      `https://other.example:${server.addr.port}/`,
    );
    assert.notEqual(fronted.code, 0);
    assert.equal(seen.length, 3);
    assert.equal((await lab.record()).at(-1), "block sni sni_mismatch");
  } finally {
    await server.shutdown();
    await Deno.remove(file);
  }
});

/** What a strict server read. */
interface ReadRequest {
  readonly method: string;
  readonly url: string;
  readonly host: string;
  readonly body: string;
}

/** A node:http server that remembers every request it read, and every one it could not read. */
class StrictServer implements AsyncDisposable {
  readonly requests: ReadRequest[] = [];
  readonly errors: string[] = [];
  readonly #server: http.Server;

  private constructor() {
    this.#server = http.createServer((request, response) => {
      const pieces: Buffer[] = [];
      request.on("data", (piece: Buffer) => pieces.push(piece));
      request.on("end", () => {
        this.requests.push({
          method: request.method ?? "",
          url: request.url ?? "",
          host: request.headers.host ?? "",
          body: Buffer.concat(pieces).toString("latin1"),
        });
        response.setHeader("X-Count", String(this.requests.length));
        response.end(`body of ${pieces.length}`);
      });
      request.on("error", () => {}); // broken off in the middle of its body: not taken for whole
    });
    this.#server.on("clientError", (error, socket) => {
      // "aborted" is a request that broke off, which is what a refused body must look like.
      if (error.message !== "aborted") this.errors.push(error.message);
      socket.destroy();
    });
  }

  static async start(): Promise<StrictServer> {
    const server = new StrictServer();
    await new Promise<void>((resolve) => server.#server.listen(0, "127.0.0.1", resolve));
    return server;
  }

  get port(): number {
    const address: AddressInfo | string | null = this.#server.address();
    if (address === null || typeof address === "string") throw new TypeError("not listening");
    return address.port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }
}

labTest("curl: plain HTTP with uploads of every kind", { tools: ["curl"] }, async () => {
  await using server = await StrictServer.start();
  await using lab = await Lab.start({ rules: [{ condition: 'http.host == "a.example"' }] });
  const url = `http://a.example:${server.port}/x`;
  const big = "y".repeat(2 * 1024 * 1024);
  const file = await Deno.makeTempFile({ prefix: "outcall-proxy-" });
  await Deno.writeTextFile(file, big);
  try {
    // Two URLs: the second request takes the same connection. An h2c offer is ignored.
    const twice = await curl(lab.port, "--http2", "-w", "%{num_connects}", url, url);
    assert.match(twice.stdout, /^body of 01body of 00$/, twice.stderr);
    await curl(lab.port, "--data-binary", `@${file}`, url); // with Expect: 100-continue
    await curl(lab.port, "-T", file, "-H", "Transfer-Encoding: chunked", url);
    await curl(lab.port, "-I", url);
    await curl(lab.port, "--http1.0", url);
    const blocked = await curl(
      lab.port,
      "-w",
      "%{http_code}",
      "-o",
      "/dev/null",
      `http://b.example:${server.port}/`,
    );
    assert.equal(blocked.stdout, "403");
  } finally {
    await Deno.remove(file);
  }
  assert.deepEqual(
    server.requests.map(({ method, body }) => `${method} ${body.length}`),
    ["GET 0", "GET 0", `POST ${big.length}`, `PUT ${big.length}`, "HEAD 0", "GET 0"],
  );
  assert.deepEqual(server.errors, []);
});
