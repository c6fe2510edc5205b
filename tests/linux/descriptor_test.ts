import assert from "node:assert/strict";
import { cutConnection, descriptorOf } from "../../lib/linux/descriptor.ts";

/** Asks for a descriptor; also tells how many descriptors were looked at. */
function search(conn: Deno.TcpConn): { readonly found: number | null; readonly asked: number } {
  let asked = 0;
  const isTaken = (): boolean => {
    asked++;
    return false;
  };
  try {
    return { found: descriptorOf(conn, isTaken), asked };
  } catch (thrown) {
    assert.ok(thrown instanceof Deno.errors.NotConnected);
    return { found: null, asked };
  }
}

Deno.test("a connection that its peer has reset is searched among the open descriptors only", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const client = await Deno.connect({ hostname: "127.0.0.1", port: listener.addr.port });
  using server = await listener.accept();
  const { found } = search(client);
  assert.ok(found !== null && search(server).found !== null, "positive control: both are found");

  cutConnection(found); // so that closing resets
  client.close();
  let lost = search(server);
  for (let polls = 0; lost.found !== null && polls < 1_000; polls++) {
    await new Promise((resolve) => setTimeout(resolve, 1));
    lost = search(server);
  }
  assert.equal(lost.found, null);
  assert.ok(lost.asked < 2_000, `${lost.asked} descriptors were asked`);
});

Deno.test("a connection is found behind more descriptors than the first look covers", async () => {
  const files = Array.from({ length: 400 }, () => Deno.openSync("/dev/null"));
  try {
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    using client = await Deno.connect({ hostname: "127.0.0.1", port: listener.addr.port });
    using _server = await listener.accept();
    const { found } = search(client);
    assert.ok(found !== null && found >= 400);
  } finally {
    for (const file of files) file.close();
  }
});
