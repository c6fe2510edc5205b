/**
 * A registry with one image, `lab/pulled:1`, for one engine on the same machine: as much of the OCI
 * distribution specification as a pull needs. Prints its port, and ends when it is told something.
 * Run it where the engine runs.
 */
import { createHash } from "node:crypto";
import { gzipSync } from "node:zlib";

function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

// Two zero blocks are the end of a tar archive; one without files makes a layer all the same.
const archive = new Uint8Array(1_024);
const layer = gzipSync(archive);
const config = new TextEncoder().encode(JSON.stringify({
  architecture: Deno.build.arch === "aarch64" ? "arm64" : "amd64",
  os: "linux",
  config: {},
  rootfs: { type: "layers", diff_ids: [digestOf(archive)] },
  history: [{ created: "2020-01-01T00:00:00Z" }],
}));
const MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json";
const manifest = new TextEncoder().encode(JSON.stringify({
  schemaVersion: 2,
  mediaType: MANIFEST_TYPE,
  config: {
    mediaType: "application/vnd.docker.container.image.v1+json",
    size: config.length,
    digest: digestOf(config),
  },
  layers: [{
    mediaType: "application/vnd.docker.image.rootfs.diff.tar.gzip",
    size: layer.length,
    digest: digestOf(layer),
  }],
}));

const contents = new Map<string, Uint8Array<ArrayBuffer>>([
  ["/v2/", new Uint8Array()],
  ["/v2/lab/pulled/manifests/1", manifest],
  [`/v2/lab/pulled/manifests/${digestOf(manifest)}`, manifest],
  [`/v2/lab/pulled/blobs/${digestOf(config)}`, config],
  [`/v2/lab/pulled/blobs/${digestOf(layer)}`, new Uint8Array(layer)],
]);

Deno.serve({
  hostname: "127.0.0.1",
  port: 0,
  onListen: ({ port }) => console.log(`port ${port}`),
}, (request) => {
  const { pathname } = new URL(request.url);
  const bytes = contents.get(pathname);
  if (bytes === undefined) {
    return Response.json({ errors: [{ code: "MANIFEST_UNKNOWN", message: "manifest unknown" }] }, {
      status: 404,
    });
  }
  return new Response(request.method === "HEAD" ? null : bytes, {
    headers: {
      "content-length": `${bytes.length}`,
      "content-type": pathname.includes("/manifests/") ? MANIFEST_TYPE : "application/octet-stream",
      "docker-content-digest": digestOf(bytes),
    },
  });
});

await Deno.stdin.read(new Uint8Array(1));
Deno.exit(0);
