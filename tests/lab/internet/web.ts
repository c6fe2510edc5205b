/** The lab's web: HTTP on port 80 and HTTPS on port 443, at every address and for every name. */
import http from "node:http";
import net from "node:net";
import tls from "node:tls";
import type { CertificateAuthority } from "../ca.ts";
import type { ReceiptBook } from "./receipts.ts";
import type { Route } from "./transport.ts";

/** What a client without a key gets from an API that wants one. */
const UNAUTHORIZED = { error: { message: "No API key was given.", type: "invalid_request_error" } };

function route(socket: net.Socket, port: number): Route {
  return { from: socket.remoteAddress ?? "", to: socket.localAddress ?? "", port };
}

function respond(request: http.IncomingMessage, response: http.ServerResponse): void {
  const host = request.headers.host ?? "";
  request.resume();
  request.on("end", () => {
    if (host === "api.openai.com") {
      response.writeHead(401, { "content-type": "application/json" });
      response.end(JSON.stringify(UNAUTHORIZED));
    } else {
      response.writeHead(200, { "content-type": "text/plain" });
      response.end(`${request.method} ${request.url} at ${host}\n`);
    }
  });
}

/** An HTTP server that writes a receipt for each request; it listens nowhere by itself. */
function webServer(port: number, book: ReceiptBook): http.Server {
  return http.createServer((request, response) => {
    book.add({
      kind: "http",
      ...route(request.socket, port),
      name: (request.headers.host ?? "").toLowerCase(),
      method: request.method ?? "",
      path: request.url ?? "",
    });
    respond(request, response);
  });
}

/** Starts both at every address. */
export function serveWeb(ca: CertificateAuthority, book: ReceiptBook): void {
  const plain = webServer(80, book);
  plain.on("connection", (socket: net.Socket) => book.add({ kind: "tcp", ...route(socket, 80) }));
  plain.listen(80, "0.0.0.0");

  const secure = webServer(443, book);
  net.createServer((socket) => {
    // Before any byte of TLS: what connects and then stays silent has arrived too.
    const at = route(socket, 443);
    book.add({ kind: "tcp", ...at });
    const session = new tls.TLSSocket(socket, {
      isServer: true,
      ALPNProtocols: ["http/1.1"],
      SNICallback: (name, done): void => {
        book.add({ kind: "tls", ...at, name: name.toLowerCase() });
        ca.leaf(name).then(({ cert, key }) => done(null, tls.createSecureContext({ cert, key })))
          .catch(done);
      },
    });
    session.on("error", () => socket.destroy()); // not TLS, or not our root
    secure.emit("connection", session);
  }).listen(443, "0.0.0.0");
}
