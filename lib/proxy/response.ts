/**
 * The head of an upstream's response, and what of it goes on to the client (RFC 9112 §4, §6.3).
 * The upstream may be hostile: its framing is understood here and rebuilt by us, so that no client
 * reads two responses where we saw one.
 */
import { textOf } from "./bytes.ts";
import { endToEnd, type Field, field, listMembers, parseFieldLines, valuesOf } from "./fields.ts";

/** Cookies make some response heads long; browsers stop at a few hundred KiB. */
export const MAX_RESPONSE_HEAD_BYTES = 64 * 1024;

/** How long a response body is. */
export type ResponseBody =
  | { readonly kind: "none" }
  | { readonly kind: "length"; readonly bytes: number }
  | { readonly kind: "chunked" }
  | { readonly kind: "until_close" };

/** A response head that was understood. */
export interface ResponseHead {
  readonly kind: "response";
  /** 100–599. */
  readonly status: number;
  /** Byte string, may be empty. */
  readonly phrase: string;
  readonly fields: readonly Field[];
  readonly body: ResponseBody;
  /** Upstream takes another request on the same connection (RFC 9112 §9.3). */
  readonly persistent: boolean;
}

/** A response that cannot be passed on safely. */
export interface ResponseRefusal {
  readonly kind: "refused";
  readonly problem: string;
}

/** Reads a whole response head, its empty line included; `method` is that of the request. */
export function parseResponseHead(
  head: Uint8Array,
  method: string,
): ResponseHead | ResponseRefusal {
  const [statusLine = "", ...fieldLines] = textOf(head).slice(0, -4).split("\r\n");
  const line = /^HTTP\/1\.([01]) ([1-5][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?$/.exec(statusLine);
  if (line === null) return refuse("malformed status line");
  const fields = parseFieldLines(fieldLines);
  if (fields === null) return refuse("malformed header field");
  const status = Number(line[2]);
  const body = bodyOf(fields, { status, method, old: line[1] === "0" });
  if (body.kind === "refused") return body;
  return {
    kind: "response",
    status,
    phrase: line[3] ?? "",
    fields,
    body,
    persistent: line[1] === "1" && body.kind !== "until_close" &&
      !listMembers(valuesOf(fields, "connection")).includes("close"),
  };
}

function refuse(problem: string): ResponseRefusal {
  return { kind: "refused", problem };
}

function bodyOf(
  fields: readonly Field[],
  { status, method, old }: { status: number; method: string; old: boolean },
): ResponseBody | ResponseRefusal {
  const codings = valuesOf(fields, "transfer-encoding");
  const lengths = new Set(valuesOf(fields, "content-length"));
  if (codings.length > 0 && (lengths.size > 0 || old)) return refuse("ambiguous framing");
  if (codings.length > 0 && codings.join().toLowerCase() !== "chunked") {
    return refuse("a transfer coding other than chunked");
  }
  const [length, ...others] = lengths;
  if (others.length > 0) return refuse("contradicting Content-Length fields");
  if (length !== undefined && !/^[0-9]{1,15}$/.test(length)) {
    return refuse("malformed Content-Length");
  }
  if (method === "HEAD" || status < 200 || status === 204 || status === 304) {
    return { kind: "none" };
  }
  if (codings.length > 0) return { kind: "chunked" };
  return length === undefined ? { kind: "until_close" } : { kind: "length", bytes: Number(length) };
}

/** How the body goes on to a client: lengths are kept, everything else is chunked where it can be. */
export function framingForClient(body: ResponseBody, version: "1.0" | "1.1"): ResponseBody {
  if (body.kind === "none" || body.kind === "length") return body;
  return { kind: version === "1.1" ? "chunked" : "until_close" };
}

/** What goes on to the client as it came. Only we tell of decisions: a server could deny in our name. */
export function fieldsPassedOn({ fields }: ResponseHead): Field[] {
  return endToEnd(fields).filter(({ name }) =>
    name !== "content-length" && !name.startsWith("x-outcall-")
  );
}

/** The fields that go on to the client, with framing of our own. */
export function fieldsForClient(
  response: ResponseHead,
  framing: ResponseBody,
  persistent: boolean,
): Field[] {
  const fields = fieldsPassedOn(response);
  const [length] = valuesOf(response.fields, "content-length");
  if (framing.kind === "chunked") fields.push(field("Transfer-Encoding", "chunked"));
  // To HEAD and 304 it tells the length that a body would have had (RFC 9110 §8.6).
  const describesBody = framing.kind === "length" || (framing.kind === "none" &&
    response.status >= 200 && response.status !== 204);
  if (describesBody && length !== undefined) {
    fields.push(field("Content-Length", String(Number(length))));
  }
  fields.push(field("Connection", persistent ? "keep-alive" : "close"));
  return fields;
}
