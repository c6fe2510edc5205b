import { deepEqual, equal, ok, rejects } from "node:assert/strict";
import { createServer } from "node:net";
import { OutcallError } from "../../lib/errors.ts";
import { serveUnix, type UnixServerOptions } from "../../lib/api/unix_server.ts";
import { post, send, withDirectory, withHostApi } from "./running.ts";

function options(path: string, answer = "hello"): UnixServerOptions {
  return {
    path,
    mode: 0o600,
    admit: () => {},
    fetch: () => new Response(answer),
    target: "host_api",
  };
}

function refusedWith(code: string): (thrown: unknown) => boolean {
  return (thrown) => thrown instanceof OutcallError && thrown.code === code;
}

/** Leaves a socket at `path` that nobody listens on, as a killed daemon does. */
async function leaveStale(path: string): Promise<void> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(`${path}.x`, resolve));
  Deno.linkSync(`${path}.x`, path);
  await new Promise<void>((resolve) => server.close(() => resolve()));
}

Deno.test("missing directories are made, and the socket has exactly the mode asked for", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/a/b/host.sock`;
    const server = await serveUnix({ ...options(path), mode: 0o660 });
    try {
      equal((Deno.lstatSync(path).mode ?? 0) & 0o777, 0o660);
      equal((await send(path, "GET", "/")).text, "hello");
      deepEqual(
        [...Deno.readDirSync(`${directory}/a/b`)].map((entry) => entry.name).sort(),
        [".host.sock.lock", "host.sock"],
      );
    } finally {
      await server.close();
    }
    await rejects(Deno.lstat(path), Deno.errors.NotFound);
  }));

Deno.test("a second name in a folder of its own is made anew by each server (D20)", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/agent.sock`;
    const alsoAt = `${path}.d/agent.sock`;
    const namesInFolder = (): string[] =>
      [...Deno.readDirSync(`${path}.d`)].map((entry) => entry.name);
    const first = await serveUnix({ ...options(path), alsoAt });
    equal((await send(alsoAt, "GET", "/")).text, "hello");
    deepEqual(namesInFolder(), ["agent.sock"]); // nothing else of the host is to be seen inside
    await first.close();
    deepEqual(namesInFolder(), []);
    // What a killed daemon leaves.
    await leaveStale(path);
    await leaveStale(alsoAt);
    const second = await serveUnix({ ...options(path, "second"), alsoAt });
    try {
      equal((await send(alsoAt, "GET", "/")).text, "second");
      equal((await send(path, "GET", "/")).text, "second");
    } finally {
      await second.close();
    }
  }));

Deno.test("a link in place of the second name's folder is not followed (ADV-HOST-02)", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/agent.sock`;
    Deno.mkdirSync(`${directory}/elsewhere`);
    Deno.symlinkSync(`${directory}/elsewhere`, `${path}.d`);
    await rejects(
      serveUnix({ ...options(path), alsoAt: `${path}.d/agent.sock` }),
      refusedWith("socket.bind"),
    );
    deepEqual([...Deno.readDirSync(`${directory}/elsewhere`)], []);
  }));

Deno.test("a stale socket is replaced (S001-FR-022)", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/host.sock`;
    await leaveStale(path);
    const server = await serveUnix(options(path));
    try {
      equal((await send(path, "GET", "/")).text, "hello");
    } finally {
      await server.close();
    }
  }));

Deno.test("a living server's socket is left alone", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/host.sock`;
    const first = await serveUnix(options(path, "first"));
    try {
      await rejects(serveUnix(options(path, "second")), refusedWith("socket.in_use"));
      equal((await send(path, "GET", "/")).text, "first");
    } finally {
      await first.close();
    }
  }));

Deno.test("a socket that some other program listens on is left alone", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/host.sock`;
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(path, resolve));
    try {
      await rejects(serveUnix(options(path)), refusedWith("socket.in_use"));
      ok(Deno.lstatSync(path).isSocket);
    } finally {
      await new Promise<void>((resolve) => other.close(() => resolve()));
    }
  }));

Deno.test("of many daemons that start over one stale socket, exactly one serves", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/host.sock`;
    for (let round = 0; round < 10; round++) {
      await leaveStale(path);
      const starts = await Promise.allSettled(
        Array.from({ length: 8 }, (_, i) => serveUnix(options(path, `daemon ${i}`))),
      );
      const winners = starts.flatMap((start, i) => start.status === "fulfilled" ? [i] : []);
      equal(winners.length, 1);
      for (const start of starts) {
        if (start.status === "rejected") ok(refusedWith("socket.in_use")(start.reason));
      }
      equal((await send(path, "GET", "/")).text, `daemon ${winners[0]}`);
      for (const start of starts) if (start.status === "fulfilled") await start.value.close();
    }
  }));

for (
  const [what, plant] of [
    ["a regular file", (path: string) => Deno.writeTextFileSync(path, "precious")],
    ["a directory", (path: string) => Deno.mkdirSync(path)],
    ["a symlink to nothing", (path: string) => Deno.symlinkSync(`${path}.nowhere`, path)],
    ["a symlink to a file", (path: string) => {
      Deno.writeTextFileSync(`${path}.target`, "precious");
      Deno.symlinkSync(`${path}.target`, path);
    }],
  ] as const
) {
  Deno.test(`${what} in the socket's place is refused and untouched (ADV-HOST-02)`, () =>
    withDirectory(async (directory) => {
      const path = `${directory}/host.sock`;
      plant(path);
      const before = Deno.lstatSync(path);
      await rejects(serveUnix(options(path)), refusedWith("socket.not_a_socket"));
      const after = Deno.lstatSync(path);
      deepEqual([after.ino, after.size, after.mode], [before.ino, before.size, before.mode]);
      ok(
        ![...Deno.readDirSync(directory)].some((entry) =>
          entry.isDirectory && entry.name[0] === "."
        ),
      );
    }));
}

Deno.test("a symlink to a stale socket is refused too (ADV-HOST-02)", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/host.sock`;
    await leaveStale(`${directory}/other.sock`);
    Deno.symlinkSync(`${directory}/other.sock`, path);
    await rejects(serveUnix(options(path)), refusedWith("socket.not_a_socket"));
    ok(Deno.lstatSync(`${directory}/other.sock`).isSocket);
  }));

Deno.test("a lock that is a symlink is refused, and what it points to is not made", () =>
  withDirectory(async (directory) => {
    Deno.symlinkSync(`${directory}/victim`, `${directory}/.host.sock.lock`);
    await rejects(serveUnix(options(`${directory}/host.sock`)), refusedWith("socket.bind"));
    await rejects(Deno.lstat(`${directory}/victim`), Deno.errors.NotFound);
  }));

Deno.test("a path that is relative or too long for the kernel is refused", async () => {
  await rejects(serveUnix(options("host.sock")), refusedWith("socket.path"));
  await withDirectory(async (directory) => {
    await rejects(
      serveUnix(options(`${directory}/${"x".repeat(100)}`)),
      refusedWith("socket.path"),
    );
    deepEqual([...Deno.readDirSync(directory)], []);
  });
});

Deno.test("close removes only our own file", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/host.sock`;
    const server = await serveUnix(options(path));
    Deno.removeSync(path);
    Deno.writeTextFileSync(path, "somebody else's");
    await server.close();
    equal(Deno.readTextFileSync(path), "somebody else's");
  }));

Deno.test("close lets a request in flight finish, and accepts no new one", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/host.sock`;
    const arrived = Promise.withResolvers<void>();
    const finish = Promise.withResolvers<Response>();
    const server = await serveUnix({
      ...options(path),
      fetch: () => {
        arrived.resolve();
        return finish.promise;
      },
    });
    const inFlight = send(path, "GET", "/");
    await arrived.promise;
    const closed = server.close();
    await rejects(send(path, "GET", "/"), { code: "ENOENT" });
    finish.resolve(new Response("done"));
    equal((await inFlight).text, "done");
    await closed;
  }));

Deno.test("a request that never ends does not keep the daemon from stopping", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/host.sock`;
    const arrived = Promise.withResolvers<void>();
    const server = await serveUnix({
      ...options(path),
      fetch: () => {
        arrived.resolve();
        return new Promise<Response>(() => {});
      },
    });
    const cut = rejects(send(path, "GET", "/"));
    await arrived.promise;
    await server.close();
    await cut;
  }));

Deno.test("a refused peer gets a 403 envelope, and the app never runs (ADV-HOST-01)", async () => {
  const admit = (): void => {
    throw new OutcallError(403, "peer.forbidden", "forbidden: not you", { hint: "Ask." });
  };
  await withHostApi(async ({ path, calls }) => {
    const reply = await post(path, "/api/v1/bridge/up");
    equal(reply.status, 403);
    deepEqual(reply.json, {
      ok: false,
      error: "forbidden: not you",
      code: "peer.forbidden",
      hint: "Ask.",
    });
    equal((await send(path, "GET", "/no/such/thing")).status, 403);
    deepEqual(calls, []);
  }, { admit });
});

Deno.test("a peer check that breaks refuses, and tells nothing", async () => {
  const admit = (): void => {
    throw new Error("/root/secret");
  };
  await withHostApi(async ({ path, calls }) => {
    const reply = await post(path, "/api/v1/bridge/up");
    equal(reply.status, 403);
    ok(!reply.text.includes("secret"));
    deepEqual(calls, []);
  }, { admit });
});

Deno.test("the app is told whose connection it is", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/host.sock`;
    const server = await serveUnix({
      ...options(path),
      fetch: (_request, { peer }) => Response.json(peer),
    });
    try {
      deepEqual((await send(path, "GET", "/")).json, {
        pid: Deno.pid,
        uid: Deno.uid(),
        gid: Deno.gid(),
      });
    } finally {
      await server.close();
    }
  }));

Deno.test("connections beyond the limit are closed, the others go on", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/host.sock`;
    const release = Promise.withResolvers<void>();
    const arrived = Promise.withResolvers<void>();
    let waiting = 0;
    const server = await serveUnix({
      ...options(path),
      maxConnections: 2,
      fetch: async () => {
        if (++waiting === 2) arrived.resolve();
        await release.promise;
        return new Response("served");
      },
    });
    try {
      const admitted = [send(path, "GET", "/"), send(path, "GET", "/")];
      await arrived.promise;
      await rejects(send(path, "GET", "/"));
      release.resolve();
      deepEqual((await Promise.all(admitted)).map((reply) => reply.text), ["served", "served"]);
    } finally {
      await server.close();
    }
  }));

Deno.test("a Host header that makes no URL is a 400 envelope", () =>
  withHostApi(async ({ path }) => {
    const reply = await send(path, "GET", "/api/v1/bridge", { headers: { Host: "a b" } });
    equal(reply.status, 400);
    equal(reply.text.slice(0, 12), '{"ok":false,');
  }));

Deno.test("a connection too many is closed at once, and keeps nobody's place (T-8)", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/s.sock`;
    const server = await serveUnix({
      ...options(path),
      admit: () => {
        throw new OutcallError(429, "peer.busy", "too many connections");
      },
    });
    try {
      await rejects(send(path, "GET", "/"));
    } finally {
      await server.close();
    }
  }));
