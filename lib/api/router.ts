/** What both API apps share: envelopes for everything that can go wrong before a handler runs. */
import { Buffer } from "node:buffer";
import { type Context, Hono } from "hono";
import type { z } from "zod";
import { OutcallError } from "../errors.ts";
import type { PeerCredentials } from "../linux/peer.ts";
import type { Target } from "../log.ts";
import { presentable, sendFailure } from "./envelope.ts";
import { parse } from "./parse.ts";

/** What the Unix server tells a handler about the connection. */
export interface PeerEnv {
  /** Whose connection this is, on the kernel's word. */
  readonly peer: PeerCredentials;
}

/** A Hono app served by {@linkcode serveUnix}. */
export type ApiApp = Hono<{ Bindings: PeerEnv }>;

/** One request, as handlers see it. */
export type ApiContext = Context<{ Bindings: PeerEnv }>;

/** One endpoint. */
export interface Route {
  readonly method: "GET" | "POST";
  /** Hono path pattern. */
  readonly path: string;
  readonly handle: (c: ApiContext) => Response | Promise<Response>;
}

/** Few requests have a reason to send more; those name their own limit. */
const MAX_BODY_BYTES = 1024 * 1024;

/** An app that answers `routes`, and everything else with a failure envelope. */
export function apiApp(routes: readonly Route[], target: Target): ApiApp {
  const app: ApiApp = new Hono<{ Bindings: PeerEnv }>();
  for (const route of routes) app.on(route.method, route.path, route.handle);
  for (const [path, allow] of allowedMethods(routes)) {
    app.all(path, (c) => {
      c.header("Allow", allow);
      return sendFailure(
        c,
        new OutcallError(405, "request.method", `${c.req.method} is not possible here`, {
          hint: `Use ${allow}.`,
        }),
      );
    });
  }
  app.notFound((c) =>
    sendFailure(c, new OutcallError(404, "request.not_found", `no such endpoint: ${c.req.path}`))
  );
  app.onError((thrown, c) => sendFailure(c, presentable(thrown, target)));
  return app;
}

function allowedMethods(routes: readonly Route[]): Map<string, string> {
  const allowed = new Map<string, string>();
  for (const { method, path } of routes) {
    const methods = method === "GET" ? "GET, HEAD" : method; // Hono answers HEAD wherever GET is
    const others = allowed.get(path);
    allowed.set(path, others === undefined ? methods : `${others}, ${methods}`);
  }
  return allowed;
}

/**
 * The JSON body as `schema` describes it.
 * @param maxBytes Longest body that is read.
 * @throws OutcallError `request.malformed` (400) when it is not JSON, `request.too_large` (413),
 * `request.invalid` (422) when it does not fit.
 */
export async function readBody<S extends z.ZodType>(
  c: ApiContext,
  schema: S,
  maxBytes: number = MAX_BODY_BYTES,
): Promise<z.output<S>> {
  const mediaType = c.req.header("content-type")?.split(";")[0]?.trim().toLowerCase();
  if (mediaType !== "application/json") {
    throw new OutcallError(400, "request.malformed", "the request body must be JSON", {
      hint: "Send a JSON object with the header Content-Type: application/json.",
    });
  }
  const bytes = await readBytes(c.req.raw, maxBytes);
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new OutcallError(400, "request.malformed", "the request body is not valid JSON", {
      cause,
    });
  }
  return parse(schema, "request body", json);
}

async function readBytes(request: Request, maxBytes: number): Promise<Uint8Array> {
  if (Number(request.headers.get("content-length") ?? 0) > maxBytes) throw tooLarge(maxBytes);
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of request.body ?? []) {
    bytes += chunk.length;
    if (bytes > maxBytes) throw tooLarge(maxBytes);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function tooLarge(maxBytes: number): OutcallError {
  return new OutcallError(413, "request.too_large", `request body exceeds ${maxBytes} bytes`);
}

/**
 * The query string as `schema` describes it.
 * @throws OutcallError `request.invalid` (422), also for a parameter given twice.
 */
export function readQuery<S extends z.ZodType>(c: ApiContext, schema: S): z.output<S> {
  const query: Record<string, string> = {};
  for (const [name, values] of Object.entries(c.req.queries())) {
    if (values.length > 1) {
      throw new OutcallError(422, "request.invalid", `invalid query: "${name}" is given twice`);
    }
    query[name] = values[0] ?? "";
  }
  return parse(schema, "query", query);
}
