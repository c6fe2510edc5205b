/**
 * The opening handshake of a WebSocket (RFC 6455 §4). Behind it nobody judges what is sent any more,
 * so both sides must really mean it: a server that can be brought to answer 101 by other means would
 * take the next bytes for a request.
 */
import { createHash } from "node:crypto";
import { type Field, listMembers, valuesOf } from "./fields.ts";

/** RFC 6455 §1.3: proves that the server knows the protocol. */
const ACCEPT_SUFFIX = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/** Sixteen bytes in base64 (RFC 6455 §4.1). */
const KEY = /^[A-Za-z0-9+/]{22}==$/;

/** Whether these fields of a GET ask for a WebSocket. */
export function asksForWebSocket(fields: readonly Field[]): boolean {
  return listMembers(valuesOf(fields, "connection")).includes("upgrade") &&
    listMembers(valuesOf(fields, "upgrade")).join() === "websocket" &&
    valuesOf(fields, "sec-websocket-version").join() === "13" &&
    KEY.test(keyOf(fields));
}

/** Whether `response`, of a 101, agrees to what `request` asks for. */
export function agreesToWebSocket(request: readonly Field[], response: readonly Field[]): boolean {
  const accept = createHash("sha1").update(keyOf(request) + ACCEPT_SUFFIX).digest("base64");
  return listMembers(valuesOf(response, "upgrade")).join() === "websocket" &&
    valuesOf(response, "sec-websocket-accept").join() === accept;
}

function keyOf(fields: readonly Field[]): string {
  return valuesOf(fields, "sec-websocket-key").join();
}
