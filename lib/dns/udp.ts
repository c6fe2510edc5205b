/** One UDP socket of the DNS filter. */
import { messageOf } from "../errors.ts";
import { logger } from "../log.ts";
import { MAX_MESSAGE_BYTES } from "./codes.ts";
import type { PacketHandler } from "./filter.ts";
import type { Listener } from "./listener.ts";

const log = logger("dns");

/** Pause after a failed receive, so that a lasting failure does not spin. */
const RETRY_MS = 100;

/**
 * Serves `filter` on `address`:`port` by UDP.
 * @throws what `Deno.listenDatagram` throws when it cannot be bound.
 */
export function listenUdp(filter: PacketHandler, address: string, port: number): Listener {
  const socket = Deno.listenDatagram({ transport: "udp", hostname: address, port });
  const replies = new Set<Promise<void>>();
  let draining = false;
  let closed = false;

  async function sendTo(reply: Uint8Array | null, to: Deno.Addr): Promise<void> {
    if (reply === null || closed) return;
    try {
      await socket.send(reply, to);
    } catch (thrown) {
      // The agent is gone, or its network is: its own loss.
      log.debug("no reply by UDP: {error}", { error: messageOf(thrown) });
    }
  }

  function answer(packet: Uint8Array, from: Deno.Addr): void {
    if (from.transport !== "udp" || draining) return;
    const handled = filter.handle(packet, { address: from.hostname, transport: "udp" });
    const sent = handled instanceof Promise
      ? handled.then((reply) => sendTo(reply, from))
      : sendTo(handled, from);
    replies.add(sent);
    void sent.finally(() => replies.delete(sent));
  }

  async function serve(): Promise<void> {
    // The filter holds on to nothing of a packet, so one buffer serves all of them.
    const buffer = new Uint8Array(MAX_MESSAGE_BYTES);
    while (!closed) {
      try {
        const [packet, from] = await socket.receive(buffer);
        answer(packet, from);
      } catch (thrown) {
        if (closed) return;
        log.warn("receiving on {address} failed: {error}", { address, error: messageOf(thrown) });
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
  }

  const serving = serve();
  return {
    async drain(): Promise<void> {
      draining = true;
      await Promise.allSettled(replies);
    },
    async close(): Promise<void> {
      closed = true;
      socket.close();
      await serving;
    },
  };
}
