/**
 * The upstream connection that a client's connection keeps between its requests. It is never
 * another client's, so that nothing an upstream sends late or a client sends twice can reach
 * somebody else; and its address is judged anew for each request.
 */
import type { Destination } from "./destination.ts";
import type { BufferedConn } from "./stream.ts";

/** A connection to upstream, and the address that it was dialled to. */
export interface Upstream {
  readonly stream: BufferedConn;
  readonly destination: Destination;
}

/** At most one such connection. */
export class SpareUpstream {
  #kept: (Upstream & { readonly origin: string }) | null = null;
  /** Nothing was dropped since the request under way took, or dialled, its connection. */
  #mayKeep = false;

  /**
   * Keeps `upstream`, whose last response is read to its end, for requests to `origin`. Closes it
   * instead when {@linkcode drop} was called while it was in use: a reload may forbid what the name's
   * look-up before it was let go through, such as an alias.
   */
  keep(origin: string, { stream, destination }: Upstream): void {
    if (!this.#mayKeep) return stream.close();
    const kept = { origin, stream, destination };
    this.#kept = kept;
    stream.onProgress = (): void => {};
    stream.relax();
    // Closed by upstream, or sent something that nobody asked for: useless either way.
    const watch = async (): Promise<void> => {
      try {
        await stream.fill();
      } finally {
        if (this.#kept === kept) this.drop();
      }
    };
    watch().catch(() => {});
  }

  /** Gives the connection to `origin` away, or null; one to elsewhere is closed. */
  take(origin: string): Upstream | null {
    const kept = this.#kept;
    this.#kept = null;
    this.#mayKeep = true;
    // Bytes that nobody asked for may have come a moment ago.
    if (kept?.origin !== origin || kept.stream.buffered.length > 0) {
      kept?.stream.close();
      return null;
    }
    return kept;
  }

  /** Closes what is kept. */
  drop(): void {
    this.#kept?.stream.close();
    this.#kept = null;
    this.#mayKeep = false;
  }
}
