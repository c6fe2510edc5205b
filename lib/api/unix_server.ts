/** Serves an app on a Unix socket to peers whose credentials the kernel vouches for. */
import { createServer, type Server } from "node:http";
import type { Socket } from "node:net";
import { getRequestListener, RequestError } from "@hono/node-server";
import { OutcallError } from "../errors.ts";
import { type PeerCredentials, peerCredentials } from "../linux/peer.ts";
import { logger, type Target } from "../log.ts";
import { endAfter } from "../patience.ts";
import { failure, presentable } from "./envelope.ts";
import type { PeerEnv } from "./router.ts";
import { placeSocket, type SocketAccess } from "./socket_file.ts";

/** How {@linkcode serveUnix} serves. */
export interface UnixServerOptions extends SocketAccess {
  /** Absolute path of the socket; directories are created, a stale socket is replaced. */
  readonly path: string;
  /** Answers an admitted peer's request, such as a Hono app's `fetch`. */
  readonly fetch: (request: Request, env: PeerEnv) => Response | Promise<Response>;
  /**
   * Lets a peer pass by returning; whatever it throws refuses every request of the connection. A
   * refusal with status 429 closes it at once: a flood must not keep the places of others.
   * @param fd The connection's descriptor, good during the call.
   * @returns What is to be called when the connection has ended, if anything.
   */
  readonly admit: (peer: PeerCredentials, fd: number) => void | (() => void);
  /** Where defects are logged. */
  readonly target: Target;
  /** Connections beyond this many are closed at once: descriptors are the daemon's, not the peers'. */
  readonly maxConnections?: number;
}

/** A running server. */
export interface UnixServer {
  /**
   * Stops accepting, lets requests in flight finish for up to 2 s, or until `atOnce` is aborted, and
   * removes the socket file.
   */
  close(atOnce?: AbortSignal): Promise<void>;
}

const DEFAULT_MAX_CONNECTIONS = 256;

/** As many as Linux takes by default (net.core.somaxconn): whoever floods must not fill it alone. */
const BACKLOG = 4_096;

/** For a whole request to arrive; local peers have no slow network to blame. */
const REQUEST_TIMEOUT_MS = 30_000;
const HEADERS_TIMEOUT_MS = 10_000;

const DRAIN_MS = 2_000;

/**
 * Listens on a Unix socket.
 *
 * Every connection's peer is looked up when it is accepted. A refused one gets a 403 envelope for
 * whatever it asks; the app never sees it.
 * @throws OutcallError see {@linkcode placeSocket}.
 */
export async function serveUnix(options: UnixServerOptions): Promise<UnixServer> {
  const peers = new WeakMap<object, PeerCredentials>();
  const refusals = new WeakMap<object, OutcallError>();

  const listener = getRequestListener(
    (request, { incoming }) => {
      const peer = peers.get(incoming.socket);
      return peer === undefined
        ? reply(refusals.get(incoming.socket) ?? unidentified())
        : options.fetch(request, { peer });
    },
    {
      overrideGlobalObjects: false,
      errorHandler: (thrown) => reply(requestError(thrown) ?? presentable(thrown, options.target)),
    },
  );
  const server = createServer((incoming, outgoing) => void listener(incoming, outgoing));
  server.maxConnections = options.maxConnections ?? DEFAULT_MAX_CONNECTIONS;
  server.requestTimeout = REQUEST_TIMEOUT_MS;
  server.headersTimeout = HEADERS_TIMEOUT_MS;
  server.on("connection", (socket: Socket) => {
    try {
      const fd = descriptorOf(socket);
      const peer = peerCredentials(fd);
      const ended = options.admit(peer, fd);
      if (ended !== undefined) socket.once("close", ended);
      peers.set(socket, peer);
    } catch (thrown) {
      if (thrown instanceof OutcallError && thrown.status === 429) {
        socket.destroy();
        return;
      }
      const refusal = refusalFor(thrown, options.target);
      refusals.set(socket, refusal);
      logger(options.target).warn("refused a connection: {reason}", { reason: refusal.message });
    }
  });

  try {
    const file = await placeSocket(options.path, options, (path) => listen(server, path));
    return {
      close: async (atOnce) => {
        file.remove();
        await drain(server, atOnce);
      },
    };
  } catch (thrown) {
    await drain(server);
    throw thrown;
  }
}

/** A check that breaks refuses, like one that says no. */
function refusalFor(thrown: unknown, target: Target): OutcallError {
  const error = presentable(thrown, target);
  return error.status === 403 ? error : unidentified();
}

/** node:net keeps the descriptor of a Unix connection here, and offers it nowhere else. */
function descriptorOf(socket: Socket): number {
  const handle: unknown = Reflect.get(socket, "_handle");
  const fd: unknown = handle instanceof Object ? Reflect.get(handle, "fd") : undefined;
  if (typeof fd !== "number" || fd < 0) throw unidentified();
  return fd;
}

function unidentified(): OutcallError {
  return new OutcallError(
    403,
    "peer.forbidden",
    "forbidden: the calling process cannot be identified",
  );
}

/** A request line or Host header that makes no URL. */
function requestError(thrown: unknown): OutcallError | null {
  return thrown instanceof RequestError
    ? new OutcallError(400, "request.malformed", "the request line or Host header is not valid")
    : null;
}

/** The refusal of a connection that no app will see; the client need not send the rest. */
function reply(error: OutcallError): Response {
  return Response.json(failure(error), {
    status: error.status,
    headers: { Connection: "close" },
  });
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ path, backlog: BACKLOG }, () => {
      server.off("error", reject);
      resolve();
    });
  });
}

async function drain(server: Server, atOnce?: AbortSignal): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeIdleConnections();
  const stopWaiting = endAfter(DRAIN_MS, atOnce, () => server.closeAllConnections());
  await closed;
  stopWaiting();
}
