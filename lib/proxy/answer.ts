/** Answers of the proxy's own: refusals that serve machines and people alike, and health. */
import type { Decision } from "../decision.ts";
import { bytesOf } from "./bytes.ts";
import { type Field, field, listMembers, renderHead, valuesOf } from "./fields.ts";
import type { Refusal, RefusalStatus } from "./refusal.ts";

/** Reason phrases of RFC 9110 §15 and RFC 6585 §4, §5. */
const PHRASES: Readonly<Record<RefusalStatus | 200, string>> = {
  200: "OK",
  400: "Bad Request",
  403: "Forbidden",
  408: "Request Timeout",
  411: "Length Required",
  413: "Content Too Large",
  417: "Expectation Failed",
  429: "Too Many Requests",
  431: "Request Header Fields Too Large",
  500: "Internal Server Error",
  502: "Bad Gateway",
  503: "Service Unavailable",
  504: "Gateway Timeout",
  505: "HTTP Version Not Supported",
};

/** How an answer is to be written. */
export interface AnswerForm {
  /** `application/json` was asked for. */
  readonly json: boolean;
  /** The request was HEAD: the body stays away, its length does not. */
  readonly headOnly: boolean;
}

/** The form that the fields of a request ask for. */
export function answerForm(fields: readonly Field[], method: string): AnswerForm {
  const accepted = listMembers(valuesOf(fields, "accept")).map((each) =>
    each.split(";")[0]?.trim()
  );
  return { json: accepted.includes("application/json"), headOnly: method === "HEAD" };
}

/**
 * The answer to a refused attempt. It says what was blocked, at which layer, under which id the
 * operator finds it and how to ask for access, but nothing of any rule.
 */
export function refusalAnswer(
  refusal: Refusal,
  decision: Decision,
  form: AnswerForm,
): Uint8Array<ArrayBuffer> {
  const blocked = refusal.status === 403;
  const { layer, reason } = refusal;
  const { id } = decision;
  const what = describe(decision);
  const subject = what === null ? "" : `${what}: `;
  const error = `${blocked ? "Blocked by outcall: " : ""}${subject}${refusal.message}` +
    ` (layer: ${layer}, reason: ${reason})`;
  const hint = blocked ? howToAsk(decision) : null;
  const text = [
    error,
    `Decision: ${id}`,
    ...(hint === null ? [] : [`To ask for access: ${hint}`]),
    "",
  ].join("\n");
  const json = {
    ok: false,
    error,
    code: `proxy.${reason}`,
    layer,
    reason,
    decision: id,
    ...(hint === null ? {} : { hint }),
  };
  return render(refusal.status, form, form.json ? JSON.stringify(json) : text, [
    ...(blocked ? [field("X-Outcall-Block-Reason", reason)] : []),
    field("X-Outcall-Decision", id),
  ]);
}

/** `200 {"status":"ok"}`, S006-IF-006. */
export function healthAnswer(): Uint8Array<ArrayBuffer> {
  return render(200, { json: true, headOnly: false }, JSON.stringify({ status: "ok" }), []);
}

function describe({ attempt }: Decision): string | null {
  const { host, port, method, path } = attempt;
  if (host === undefined || method === undefined) return null;
  return method === "CONNECT"
    ? `CONNECT ${host}:${port ?? ""}`
    : `${method} http://${origin(host, port)}${path ?? ""}`;
}

function howToAsk({ attempt }: Decision): string | null {
  const { host, port, method } = attempt;
  if (host === undefined) return null;
  const url = method === "CONNECT"
    ? `https://${port === 443 ? bracketed(host) : `${bracketed(host)}:${port ?? ""}`}`
    : `http://${origin(host, port)}`;
  return `outcall-agent request ${url} --reason "<why you need it>"`;
}

function origin(host: string, port: number | undefined): string {
  return port === undefined || port === 80 ? bracketed(host) : `${bracketed(host)}:${port}`;
}

function bracketed(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}

function render(
  status: keyof typeof PHRASES,
  form: AnswerForm,
  body: string,
  fields: readonly Field[],
): Uint8Array<ArrayBuffer> {
  const content = new TextEncoder().encode(body);
  const head = bytesOf(renderHead(`HTTP/1.1 ${status} ${PHRASES[status]}`, [
    field("Content-Type", form.json ? "application/json" : "text/plain; charset=utf-8"),
    field("Content-Length", String(content.length)),
    field("Cache-Control", "no-store"),
    ...fields,
    field("Connection", "close"),
  ]));
  if (form.headOnly) return head;
  const whole = new Uint8Array(head.length + content.length);
  whole.set(head);
  whole.set(content, head.length);
  return whole;
}
