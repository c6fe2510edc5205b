import assert from "node:assert/strict";
import { owningInodes, portOwner } from "../../lib/linux/port_owner.ts";
import { Ip } from "../../lib/net/ip.ts";

function ip(text: string): Ip {
  const parsed = Ip.parse(text);
  assert(parsed !== null);
  return parsed;
}

const TCP =
  `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 3500007F:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 111 1
   1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1
   2: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 333 1
`;
const TCP6 = `  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 444 1
`;

Deno.test("owningInodes() finds the listener on the very address", () => {
  assert.deepEqual(owningInodes(TCP, "tcp", ip("127.0.0.53"), 53), ["111"]);
  assert.deepEqual(owningInodes(TCP, "tcp", ip("127.0.0.54"), 53), []);
});

Deno.test("owningInodes() finds a wildcard listener, but no mere connection", () => {
  assert.deepEqual(owningInodes(TCP, "tcp", ip("127.0.0.1"), 8080), ["222"]);
  assert.deepEqual(owningInodes(TCP6, "tcp", ip("10.200.0.1"), 80), ["444"]);
});

Deno.test("owningInodes() counts every listener against the wildcard", () => {
  assert.deepEqual(owningInodes(TCP, "tcp", ip("0.0.0.0"), 53), ["111"]);
});

for (const protocol of ["tcp", "udp"] as const) {
  Deno.test(`portOwner() names this process for its own ${protocol} port`, () => {
    const hostname = "127.0.0.1";
    using socket = protocol === "tcp"
      ? Deno.listen({ hostname, port: 0 })
      : closing(Deno.listenDatagram({ transport: "udp", hostname, port: 0 }));
    assert("port" in socket.addr);
    const owner = portOwner(protocol, hostname, socket.addr.port);
    assert.equal(owner?.pid, Deno.pid);
    assert(owner.command.length > 0);
  });
}

function closing(socket: Deno.DatagramConn): Disposable & { readonly addr: Deno.Addr } {
  return { addr: socket.addr, [Symbol.dispose]: () => socket.close() };
}

Deno.test("portOwner() gives null for a port that nobody keeps", () => {
  const socket = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = socket.addr;
  socket.close();
  assert.equal(portOwner("tcp", "127.0.0.1", port), null);
});
