import { deepEqual, equal, throws } from "node:assert/strict";
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { bindLibc, SystemError } from "../../lib/linux/libc.ts";
import { peerCredentials } from "../../lib/linux/peer.ts";

const libc = bindLibc({
  socketpair: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
});

Deno.test("peerCredentials() names the process and user at the other end", () => {
  const pair = new Int32Array(2);
  equal(libc.socketpair(1, /* AF_UNIX */ 1, /* SOCK_STREAM */ 0, pair), 0);
  const [ours = -1, theirs = -1] = pair;
  try {
    deepEqual(peerCredentials(ours), { pid: Deno.pid, uid: Deno.uid(), gid: Deno.gid() });
  } finally {
    libc.close(ours);
    libc.close(theirs);
  }
});

Deno.test("peerCredentials() sees another process that connects to a node:net server", {
  ignore: Deno.build.os !== "linux",
}, async () => {
  const folder = await Deno.makeTempDir({ prefix: "outcall-peer-" });
  const path = `${folder}/s.sock`;
  const server: Server = createServer();
  server.listen(path);
  await once(server, "listening");
  const connected = once(server, "connection");
  const client = new Deno.Command(Deno.execPath(), {
    args: [
      "eval",
      `const c = await Deno.connect({ transport: "unix", path: ${JSON.stringify(path)} });
       await c.read(new Uint8Array(1));`,
    ],
  }).spawn();
  try {
    const [socket]: Socket[] = await connected;
    const handle: unknown = Reflect.get(socket ?? {}, "_handle");
    const fd: unknown = typeof handle === "object" && handle !== null
      ? Reflect.get(handle, "fd")
      : undefined;
    if (typeof fd !== "number") throw new Error("the accepted socket has no descriptor");
    deepEqual(peerCredentials(fd), { pid: client.pid, uid: Deno.uid(), gid: Deno.gid() });
    socket?.destroy();
  } finally {
    await client.status;
    server.close();
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("peerCredentials() fails on what is not a socket", () => {
  throws(
    () => peerCredentials(-1),
    (error: unknown) => error instanceof SystemError && error.code === "EBADF",
  );
});
