/**
 * Moves the bytes of a tunnel, unchanged, both ways, until both sides have finished.
 */
import { IdleWatch } from "./limit.ts";
import { closeQuietly, writeAll } from "./stream.ts";

/** A quiet direction holds this much; a busy one grows to the larger size. */
const FIRST_BUFFER_BYTES = 16 * 1024;
const LARGEST_BUFFER_BYTES = 256 * 1024;

/**
 * Relays between `client` and `upstream`. One side's end of stream is passed on while the other
 * direction goes on (half-close); an error, `idleMs` without a byte either way, or closing either
 * connection from outside ends both. Always closes both; never throws.
 */
export async function relay(
  client: Deno.TcpConn,
  upstream: Deno.TcpConn,
  idleMs: number,
): Promise<void> {
  const closeBoth = (): void => {
    closeQuietly(client);
    closeQuietly(upstream);
  };
  const idle = new IdleWatch(idleMs, closeBoth);
  try {
    // A failed direction must take the other one with it, or it would wait for the idle limit.
    const direction = (from: Deno.TcpConn, to: Deno.TcpConn): Promise<void> =>
      pump(from, to, () => idle.touch()).catch(closeBoth);
    await Promise.all([direction(client, upstream), direction(upstream, client)]);
  } finally {
    idle.stop();
    closeBoth();
  }
}

/** Copies until the end of `from`, then tells `to` that nothing more comes. */
async function pump(
  from: Deno.TcpConn,
  to: Deno.TcpConn,
  onProgress: () => void,
): Promise<void> {
  let buffer = new Uint8Array(FIRST_BUFFER_BYTES);
  while (true) {
    const count = await from.read(buffer);
    if (count === null) break;
    onProgress();
    await writeAll(to, buffer.subarray(0, count));
    onProgress();
    if (count === buffer.length && count < LARGEST_BUFFER_BYTES) {
      buffer = new Uint8Array(count * 2);
    }
  }
  await to.closeWrite();
}
