/** Calls of the host API over its Unix socket: bounded in time and size, and checked when they come back. */
import { Buffer } from "node:buffer";
import { type IncomingMessage, request } from "node:http";
import type { z } from "zod";
import { type FailureStatus, OutcallError } from "../errors.ts";
import { failureReply } from "./replies.ts";

/** How long the daemon may be silent. */
export const REQUEST_TIMEOUT_MS = 30_000;

/** More than any list that an operator would read. */
const MAX_REPLY_BYTES = 16 * 1024 * 1024;

/** What the operating system says, as strerror(3) words it, for what connecting can run into. */
const OS_REASONS: Readonly<Record<string, string>> = {
  EACCES: "Permission denied",
  EAGAIN: "Resource temporarily unavailable",
  ECONNREFUSED: "Connection refused",
  ECONNRESET: "Connection reset by peer",
  ELOOP: "Too many levels of symbolic links",
  ENAMETOOLONG: "File name too long",
  ENOENT: "No such file or directory",
  ENOTDIR: "Not a directory",
  ENOTSOCK: "Socket operation on non-socket",
  EPERM: "Operation not permitted",
  EPIPE: "Broken pipe",
  ETIMEDOUT: "Connection timed out",
};

const STATUSES: readonly FailureStatus[] = [
  400,
  401,
  403,
  404,
  405,
  409,
  413,
  422,
  429,
  500,
  503,
];

/** One call. */
export interface Call {
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly query?: Readonly<Record<string, string | undefined>>;
  readonly body?: object;
  readonly accept?: string;
  /** Resumes a stream after this event. */
  readonly lastEventId?: string | undefined;
  readonly timeoutMs?: number;
}

/**
 * What every call has in common. All throw the OutcallError that the daemon answered with, or
 * `daemon.unreachable` (503), or `daemon.bad_reply` (500) when what answers is no outcalld.
 */
export class HostCalls {
  /** @param socketPath Path of the host socket. Nothing is opened before the first call. */
  constructor(readonly socketPath: string) {}

  /** What the daemon answers to a GET. */
  get<S extends z.ZodType>(
    reply: S,
    path: string,
    query: Readonly<Record<string, string | undefined>> = {},
  ): Promise<z.output<S>> {
    return this.call(reply, { method: "GET", path, query });
  }

  /** What it answers to a POST. */
  post<S extends z.ZodType>(reply: S, path: string, body?: object): Promise<z.output<S>> {
    return this.call(reply, { method: "POST", path, ...(body === undefined ? {} : { body }) });
  }

  /** What it answers. */
  async call<S extends z.ZodType>(reply: S, call: Call): Promise<z.output<S>> {
    const response = await this.send(call);
    return this.read(reply, response.statusCode, await this.text(response));
  }

  /** Sends a call; the response as it begins. */
  send(call: Call): Promise<IncomingMessage> {
    const body = call.body === undefined ? "" : JSON.stringify(call.body);
    const timeoutMs = call.timeoutMs ?? REQUEST_TIMEOUT_MS;
    return new Promise((resolve, reject) => {
      const outgoing = request({
        socketPath: this.socketPath,
        method: call.method,
        path: withQuery(call.path, call.query),
        agent: false, // one command, one connection
        timeout: timeoutMs,
        headers: {
          Host: "localhost",
          Accept: call.accept ?? "application/json",
          ...(call.lastEventId === undefined ? {} : { "Last-Event-ID": call.lastEventId }),
          ...(call.method === "POST" ? { "Content-Length": Buffer.byteLength(body) } : {}),
          ...(body === "" ? {} : { "Content-Type": "application/json" }),
        },
      });
      outgoing.on("response", resolve);
      outgoing.on("timeout", () => outgoing.destroy(timedOut(timeoutMs)));
      outgoing.on("error", (cause) => reject(this.unreachable(cause)));
      outgoing.end(body);
    });
  }

  /** The rest of a response. */
  async text(response: IncomingMessage): Promise<string> {
    const chunks: Buffer[] = [];
    let bytes = 0;
    try {
      for await (const chunk of response) {
        const part = Buffer.from(chunk);
        bytes += part.length;
        if (bytes > MAX_REPLY_BYTES) break;
        chunks.push(part);
      }
    } catch (cause) {
      throw this.unreachable(cause);
    }
    if (bytes > MAX_REPLY_BYTES) throw this.#badReply(`more than ${MAX_REPLY_BYTES} bytes`);
    return Buffer.concat(chunks).toString("utf8");
  }

  /**
   * What a whole reply says, or the error that it is.
   * @param status Undefined for the end of a stream, where a failure names its own.
   */
  read<S extends z.ZodType>(reply: S, status: number | undefined, text: string): z.output<S> {
    let json: unknown;
    try {
      json = JSON.parse(text);
    } catch {
      throw this.#badReply("not JSON");
    }
    const failed = failureReply.safeParse(json);
    if (failed.success) {
      const { error, code, hint, details, report, status: named } = failed.data;
      const known = STATUSES.find((known) => known === (status ?? named)) ?? 500;
      throw new OutcallError(known, code, error, {
        ...(hint === undefined ? {} : { hint }),
        ...(details === undefined ? {} : { details }),
        ...(report === undefined ? {} : { report }),
      });
    }
    if (!(json instanceof Object) || Reflect.get(json, "ok") !== true) {
      throw this.#badReply("no envelope");
    }
    const result = reply.safeParse(json);
    if (result.success) return result.data;
    const field = result.error.issues[0]?.path.join(".") ?? "";
    throw this.#badReply(`unexpected field "${field}"`);
  }

  /** The error for a daemon that does not answer (decision D19). */
  unreachable(cause: unknown): OutcallError {
    const code: unknown = cause instanceof Error ? Reflect.get(cause, "code") : undefined;
    const reason = typeof code === "string" ? OS_REASONS[code] ?? code : String(cause);
    return new OutcallError(
      503,
      "daemon.unreachable",
      `daemon unreachable (${this.socketPath}: ${reason})`,
      { cause, hint: unreachableHint(code) },
    );
  }

  #badReply(reason: string): OutcallError {
    return new OutcallError(
      500,
      "daemon.bad_reply",
      `the reply from ${this.socketPath} cannot be read: ${reason}`,
      { hint: "Is it outcalld's host socket, and of the same version as this command?" },
    );
  }
}

function unreachableHint(code: unknown): string {
  return code === "EACCES" || code === "EPERM"
    ? "Run the command as root or as a member of the group outcall."
    : "Is outcalld running? Start it, or name its socket with --socket <path>.";
}

function timedOut(timeoutMs: number): Error {
  return Object.assign(new Error(`no answer within ${timeoutMs / 1000} s`), { code: "ETIMEDOUT" });
}

function withQuery(path: string, query: Call["query"] = {}): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined) parameters.set(name, value);
  }
  return parameters.size === 0 ? path : `${path}?${parameters}`;
}
