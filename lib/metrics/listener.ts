/**
 * Metrics by TCP, for scrapers that cannot use the operator socket: on a loopback address only, so
 * that nobody but the host's own programs reads them. Agents do not reach the host's loopback, by
 * the firewall and by the proxy.
 */
import type { MetricsService } from "../api/services.ts";
import { messageOf, OutcallError } from "../errors.ts";
import { portOwner } from "../linux/port_owner.ts";

/** Names under which a program of this host asks; a web page that points its own name here does not. */
const HOSTS = /^(localhost|127\.[0-9.]+)(:[0-9]+)?$/;

/** Serves from {@linkcode start} to {@linkcode stop}. */
export class MetricsListener {
  readonly #at: { readonly address: string; readonly port: number };
  readonly #metrics: MetricsService;
  readonly #end = new AbortController();
  #server: Deno.HttpServer | undefined;

  constructor(at: { readonly address: string; readonly port: number }, metrics: MetricsService) {
    this.#at = at;
    this.#metrics = metrics;
  }

  /**
   * Binds the port; returns the URL.
   * @throws OutcallError `metrics.bind` when that cannot be done.
   */
  start(): string {
    const { address, port } = this.#at;
    try {
      const handler = (request: Request): Promise<Response> => this.#answer(request);
      const { signal } = this.#end;
      this.#server = Deno.serve({ hostname: address, port, signal, onListen: () => {} }, handler);
    } catch (thrown) {
      const owner = portOwner("tcp", address, port);
      const by = owner === null ? "" : ` by ${owner.command} (pid ${owner.pid})`;
      const why = thrown instanceof Deno.errors.AddrInUse
        ? `address already in use${by}`
        : messageOf(thrown);
      throw new OutcallError(
        503,
        "metrics.bind",
        `metrics cannot be served on ${address}:${port}: ${why}`,
        { hint: "choose another port with --metrics-listen, or leave the flag out", cause: thrown },
      );
    }
    return `http://${address}:${port}/metrics`;
  }

  /** Stops serving. Answers under way are cut: a slow reader must not hold up what closes the firewall. */
  async stop(): Promise<void> {
    this.#end.abort();
    await this.#server?.finished;
  }

  async #answer(request: Request): Promise<Response> {
    if (!HOSTS.test(request.headers.get("host") ?? "")) return plain(403, "not under this name");
    if (new URL(request.url).pathname !== "/metrics") return plain(404, "see /metrics");
    if (request.method !== "GET" && request.method !== "HEAD") return plain(405, "use GET");
    const headers = { "Content-Type": this.#metrics.contentType };
    return new Response(await this.#metrics.text(), { headers });
  }
}

function plain(status: number, text: string): Response {
  return new Response(`${text}\n`, { status });
}
