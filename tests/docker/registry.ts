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

const BLOCK_BYTES = 512;

/** A tar archive (POSIX.1-1988, "ustar") with one file of random bytes, which nothing compresses. */
function archiveOf(name: string, bytes: number): Uint8Array {
  const header = new Uint8Array(BLOCK_BYTES);
  const put = (at: number, text: string): void => header.set(new TextEncoder().encode(text), at);
  put(0, name);
  put(100, "0000644\0" + "0000000\0".repeat(2));
  put(124, `${bytes.toString(8).padStart(11, "0")}\0${"0".repeat(11)}\0`);
  put(148, "        0");
  put(257, "ustar\x0000");
  const sum = header.reduce((total, byte) => total + byte, 0);
  put(148, `${sum.toString(8).padStart(6, "0")}\0 `);
  // Two empty blocks are the end.
  const archive = new Uint8Array(BLOCK_BYTES + bytes + 2 * BLOCK_BYTES);
  archive.set(header);
  for (let at = 0; at < bytes; at += BLOCK_BYTES) {
    crypto.getRandomValues(archive.subarray(BLOCK_BYTES + at, BLOCK_BYTES + at + BLOCK_BYTES));
  }
  return archive;
}

// Large enough that Docker tells how far it is.
const archives = [archiveOf("large", 4_096 * BLOCK_BYTES), archiveOf("small", BLOCK_BYTES)];
const layers = archives.map((archive) => gzipSync(archive));
const config = new TextEncoder().encode(JSON.stringify({
  architecture: Deno.build.arch === "aarch64" ? "arm64" : "amd64",
  os: "linux",
  config: {},
  rootfs: { type: "layers", diff_ids: archives.map(digestOf) },
  history: archives.map(() => ({ created: "2020-01-01T00:00:00Z" })),
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
  layers: layers.map((layer) => ({
    mediaType: "application/vnd.docker.image.rootfs.diff.tar.gzip",
    size: layer.length,
    digest: digestOf(layer),
  })),
}));

const contents = new Map<string, Uint8Array<ArrayBuffer>>([
  ["/v2/", new Uint8Array()],
  ["/v2/lab/pulled/manifests/1", manifest],
  [`/v2/lab/pulled/manifests/${digestOf(manifest)}`, manifest],
  [`/v2/lab/pulled/blobs/${digestOf(config)}`, config],
  ...layers.map((layer) =>
    [`/v2/lab/pulled/blobs/${digestOf(layer)}`, new Uint8Array(layer)] as const
  ),
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
