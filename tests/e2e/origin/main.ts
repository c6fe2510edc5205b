/**
 * One origin for every kind of client: a site, a git repository, registries for npm, pip and apt, an echo
 * by WebSocket. Arguments: certificate and key files, and the folder of the repository. Prints
 * `ready`, then a line for each request: its TLS server's port, protocol aside, method and path.
 */
import { aptRepository, tarball, wheel } from "./packages.ts";
import { HTTP_PORT, HTTPS_PORT, NPM_PACKAGES } from "./world.ts";

const [certPath = "", keyPath = "", repository = ""] = Deno.args;

/** Requests that wait until as many have come as they ask for. */
const waiting: (() => void)[] = [];

async function meet(count: number): Promise<void> {
  await new Promise<void>((resolve) => {
    waiting.push(resolve);
    if (waiting.length >= count) { for (const release of waiting.splice(0)) release(); }
  });
}

async function barrier(count: number): Promise<Response> {
  await meet(count);
  return new Response("all here");
}

/** Registry metadata of an npm package; the first one depends on all others. */
function npmMetadata(name: string, base: string): Response {
  const dependencies = name === "all"
    ? Object.fromEntries(NPM_PACKAGES.map((dependency) => [dependency, "1.0.0"]))
    : {};
  return Response.json({
    name,
    "dist-tags": { latest: "1.0.0" },
    versions: {
      "1.0.0": {
        name,
        version: "1.0.0",
        dependencies,
        dist: { tarball: `${base}/npm/${name}.tgz` },
      },
    },
  });
}

async function npm(path: string, base: string): Promise<Response> {
  const name = path.replace(/\.tgz$/, "");
  if (name === path) return npmMetadata(name, base);
  // None is handed out before all are asked for: so many connections are open at once.
  if (name !== "all") await meet(NPM_PACKAGES.length);
  const manifest = JSON.stringify({ name, version: "1.0.0" });
  return new Response(
    new Blob([new Uint8Array(await tarball({ "package/package.json": manifest }))]),
  );
}

function pip(path: string): Response {
  const [name = "", file] = path.split("/");
  if (file === undefined || file === "") {
    const wheelName = `${name}-1.0-py3-none-any.whl`;
    return new Response(`<a href="${wheelName}">${wheelName}</a>`, {
      headers: { "content-type": "text/html" },
    });
  }
  return new Response(new Blob([new Uint8Array(wheel(name, "1.0"))]));
}

async function apt(path: string): Promise<Response> {
  const file = (await aptRepository()).get(path.replace(/^\.\//, ""));
  return new Response(file ?? "no such file", { status: file === undefined ? 404 : 200 });
}

async function repositoryFile(path: string): Promise<Response> {
  try {
    return new Response((await Deno.open(`${repository}/${path}`)).readable);
  } catch {
    return new Response("no such file", { status: 404 });
  }
}

async function upload(request: Request): Promise<Response> {
  return new Response(`${(await request.bytes()).length} bytes`);
}

function webSocketEcho(request: Request): Response {
  const { socket, response } = Deno.upgradeWebSocket(request);
  socket.onmessage = ({ data }): void => socket.send(`echo ${data}`);
  return response;
}

function handle(request: Request): Response | Promise<Response> {
  const { pathname, origin } = new URL(request.url);
  console.log(`${request.method} ${pathname}`);
  const [, area = "", rest = ""] = /^\/([^/]*)\/?(.*)$/.exec(decodeURIComponent(pathname)) ?? [];
  switch (area) {
    case "barrier":
      return barrier(Number(rest));
    case "npm":
      return npm(rest, origin);
    case "pip":
      return pip(rest);
    case "apt":
      return apt(rest);
    case "repository.git":
      return repositoryFile(rest);
    case "upload":
      return upload(request);
    case "socket":
      return webSocketEcho(request);
    default:
      return new Response(`hello ${pathname}`);
  }
}

const onListen = (): void => {};
Deno.serve({ hostname: "0.0.0.0", port: HTTP_PORT, onListen }, handle);
Deno.serve({
  hostname: "0.0.0.0",
  port: HTTPS_PORT,
  cert: await Deno.readTextFile(certPath),
  key: await Deno.readTextFile(keyPath),
  onListen,
}, handle);
console.log("ready");
