/**
 * The request head: a total function from bytes to a request or a refusal (RFC 9112, strictly).
 *
 * Whatever two parsers could read differently is refused rather than repaired (ADV-HTTP): the
 * request that is judged must be the request that the next server sees.
 */
import { isUtf8, textOf } from "./bytes.ts";
import {
  type Field,
  listMembers,
  parseFieldLines,
  TOKEN,
  valuesOf,
  variableName,
} from "./fields.ts";
import { type AbsoluteTarget, parseAbsolute, parseAuthority } from "./target.ts";
import type { Host } from "../net/host.ts";
import { MAX_BODY_BYTES } from "../rules/types.ts";
import { asksForWebSocket } from "./websocket.ts";

/** A longer request head is answered 431 (S006-EC-006). */
export const MAX_HEAD_BYTES = 8192;
/** More fields are answered 431. */
export const MAX_FIELDS = 128;

/** How long a request body is. */
export type RequestBody =
  | { readonly kind: "none" }
  | { readonly kind: "length"; readonly bytes: number }
  | { readonly kind: "chunked" };

/** `CONNECT host:port`. */
export interface TunnelRequest {
  readonly kind: "tunnel";
  readonly host: Host;
  readonly port: number;
  readonly fields: readonly Field[];
}

/** A plain request to be forwarded. */
export interface ForwardRequest {
  readonly kind: "forward";
  /** Upper case: it is judged and sent on in this form. */
  readonly method: string;
  readonly target: AbsoluteTarget;
  readonly fields: readonly Field[];
  readonly body: RequestBody;
  /** The client waits for `100 Continue` before it sends the body. */
  readonly expectsContinue: boolean;
  /** The client asks to go on as a WebSocket (RFC 6455 §4.1). */
  readonly webSocket: boolean;
  /** The client can read a chunked answer and may send another request afterwards. */
  readonly version: "1.0" | "1.1";
  readonly persistent: boolean;
}

/** `GET /outcall-health`, answered by the proxy itself. */
export interface HealthRequest {
  readonly kind: "health";
  readonly fields: readonly Field[];
}

/** A head that is not acted on. */
export interface HeadRefusal {
  readonly kind: "refused";
  readonly status: 400 | 413 | 417 | 431 | 505;
  /** For the client, one clause without bytes of the request. */
  readonly problem: string;
}

/** What a request head can be. */
export type RequestHead = TunnelRequest | ForwardRequest | HealthRequest | HeadRefusal;

/** The path the health check is asked at, in origin form. */
const HEALTH_PATH = "/outcall-health";

/** Reads a whole request head, its empty line included. */
export function parseRequestHead(head: Uint8Array): RequestHead {
  if (head.length > MAX_HEAD_BYTES) {
    return refuse(431, `the request head is longer than ${MAX_HEAD_BYTES} bytes`);
  }
  if (!isUtf8(head)) return refuse(400, "the request head is not UTF-8");
  const text = textOf(head);
  if (!text.endsWith("\r\n\r\n")) return refuse(400, "the request head is not complete");
  const [requestLine = "", ...fieldLines] = text.slice(0, -4).split("\r\n");

  const line = /^([^ ]+) ([\x21-\x7e]+) HTTP\/([0-9]\.[0-9])$/.exec(requestLine);
  const sentMethod = line?.[1] ?? "";
  if (line === null || !TOKEN.test(sentMethod)) return refuse(400, "malformed request line");
  const method = sentMethod.toUpperCase();
  const version = line[3];
  if (version !== "1.1" && version !== "1.0") return refuse(505, "the version is not HTTP/1.x");

  if (fieldLines.length > MAX_FIELDS) return refuse(431, `more than ${MAX_FIELDS} header fields`);
  const fields = parseFieldLines(fieldLines);
  if (fields === null) return refuse(400, "malformed header field");

  const request = { method, target: line[2] ?? "", version, fields } as const;
  if (method === "CONNECT") return parseTunnel(request);
  if (request.target === HEALTH_PATH) return parseHealth(request);
  return parseForward(request);
}

interface Request {
  readonly method: string;
  readonly target: string;
  readonly version: "1.0" | "1.1";
  readonly fields: readonly Field[];
}

function refuse(status: HeadRefusal["status"], problem: string): HeadRefusal {
  return { kind: "refused", status, problem };
}

function isRefusal(value: object): value is HeadRefusal {
  return "kind" in value && value.kind === "refused";
}

function parseTunnel(request: Request): RequestHead {
  const authority = parseAuthority(request.target);
  if (authority === null) return refuse(400, "malformed CONNECT target");
  const { host, port } = authority;
  if (port === null) return refuse(400, "CONNECT needs a port");
  const hosts = hostField(request);
  if (isRefusal(hosts)) return hosts;
  // Some clients leave the port out here; CONNECT has no default port it could contradict.
  const named = hosts.authority;
  if (named !== null && !sameHost(named.host, host)) return mismatch();
  if (named !== null && named.port !== null && named.port !== port) return mismatch();
  // A body would be read as the beginning of the tunnel by one parser and not by another.
  if (declaresBody(request.fields)) return refuse(400, "CONNECT takes no body");
  return { kind: "tunnel", host, port, fields: request.fields };
}

function parseHealth(request: Request): RequestHead {
  if (request.method !== "GET" || declaresBody(request.fields)) {
    return refuse(400, `${HEALTH_PATH} is asked with GET and no body`);
  }
  const hosts = hostField(request);
  return isRefusal(hosts) ? hosts : { kind: "health", fields: request.fields };
}

function parseForward(request: Request): RequestHead {
  const { method, version, fields } = request;
  const target = parseAbsolute(request.target);
  if (typeof target === "string") return refuse(400, target);
  const hosts = hostField(request);
  if (isRefusal(hosts)) return hosts;
  const named = hosts.authority;
  if (
    named !== null && !(sameHost(named.host, target.host) && (named.port ?? 80) === target.port)
  ) {
    return mismatch();
  }
  const body = requestBody(request);
  if (isRefusal(body)) return body;
  const expectations = valuesOf(fields, "expect").map((value) => value.toLowerCase());
  if (expectations.some((value) => value !== "100-continue")) {
    return refuse(417, "only Expect: 100-continue is understood");
  }
  const options = listMembers(valuesOf(fields, "connection"));
  return {
    kind: "forward",
    method,
    target,
    fields,
    body,
    version,
    expectsContinue: version === "1.1" && expectations.length > 0 && body.kind !== "none",
    webSocket: version === "1.1" && method === "GET" && body.kind === "none" &&
      asksForWebSocket(fields),
    persistent: version === "1.1" && !options.includes("close"),
  };
}

const FRAMING: ReadonlySet<string> = new Set(["content-length", "transfer-encoding"]);

function declaresBody(fields: readonly Field[]): boolean {
  return fields.some(({ name }) => FRAMING.has(name));
}

function mismatch(): HeadRefusal {
  return refuse(400, "Host differs from the request target");
}

function sameHost(one: Host, other: Host): boolean {
  return String(one) === String(other);
}

/**
 * The one Host field, as an authority. HTTP/1.0 knows no Host (Python before 3.12 sends such a
 * CONNECT): the target alone says then where the request goes.
 */
function hostField(
  request: Request,
): HeadRefusal | { readonly authority: ReturnType<typeof parseAuthority> } {
  const [value, ...others] = valuesOf(request.fields, "host");
  if (others.length > 0) return refuse(400, "more than one Host field");
  if (value === undefined) {
    return request.version === "1.0" ? { authority: null } : refuse(400, "Host is missing");
  }
  const authority = parseAuthority(value);
  return authority === null ? refuse(400, "malformed Host field") : { authority };
}

/** RFC 9112 §6.3, and refusal where it leaves a choice. */
function requestBody(request: Request): RequestBody | HeadRefusal {
  if (request.fields.some(({ name }) => !FRAMING.has(name) && FRAMING.has(variableName(name)))) {
    return refuse(400, "a field that could be taken for framing");
  }
  const lengths = valuesOf(request.fields, "content-length");
  const codings = valuesOf(request.fields, "transfer-encoding");
  if (codings.length > 0) {
    if (lengths.length > 0) return refuse(400, "both Content-Length and Transfer-Encoding");
    if (request.version === "1.0") return refuse(400, "Transfer-Encoding in HTTP/1.0");
    if (codings.length > 1 || codings[0] !== "chunked") {
      return refuse(400, "a Transfer-Encoding other than chunked");
    }
    return { kind: "chunked" };
  }
  const [length, ...others] = lengths;
  if (length === undefined) return { kind: "none" };
  if (others.length > 0) return refuse(400, "more than one Content-Length");
  if (!/^(?:0|[1-9][0-9]*)$/.test(length)) return refuse(400, "malformed Content-Length");
  const bytes = Number(length);
  if (bytes > MAX_BODY_BYTES) {
    return refuse(413, `the request body is longer than ${MAX_BODY_BYTES} bytes`);
  }
  return { kind: "length", bytes };
}
