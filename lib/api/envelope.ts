/** Replies of both APIs: one envelope, a true HTTP status (decision D1). */
import type { Context } from "hono";
import { type Detail, OutcallError } from "../errors.ts";
import { logger, type Target } from "../log.ts";

/** A success: `ok` beside the fields themselves. */
export type Success<T extends object> = { readonly ok: true } & T;

/** A failure: text for people, a stable code for machines. */
export interface Failure {
  readonly ok: false;
  readonly error: string;
  readonly code: string;
  readonly details?: readonly Detail[];
  readonly hint?: string;
  /** For people: every detail with its line of the file, several lines. */
  readonly report?: string;
}

/** Puts `ok` in front of the fields of a reply. */
export function success<T extends object>(fields: T): Success<T> {
  return { ok: true, ...fields };
}

/** The failure as it is sent. When it is about files, the text names the first place. */
export function failure(error: OutcallError): Failure {
  const first = error.details?.[0];
  return {
    ok: false,
    error: first === undefined ? error.message : `${first.file}:${first.line}: ${first.message}`,
    code: error.code,
    ...(error.details === undefined ? {} : { details: error.details.map(positionOnly) }),
    ...(error.hint === undefined ? {} : { hint: error.hint }),
    ...(error.report === undefined ? {} : { report: error.report }),
  };
}

/** A position as decision D1 fixes it; diagnostics carry more, which the report shows. */
function positionOnly({ file, line, column, message }: Detail): Detail {
  return { file, line, column, message };
}

/**
 * What may be told about anything that was thrown. A defect becomes a plain `internal`: its text
 * may name paths or carry somebody's data, and goes to the daemon's log only.
 */
export function presentable(thrown: unknown, target: Target): OutcallError {
  if (thrown instanceof OutcallError) return thrown;
  logger(target).error("internal error: {thrown}", { thrown });
  return new OutcallError(500, "internal", "internal error", {
    hint: "The daemon's log has the details.",
  });
}

/** Sends a failure with its status. */
export function sendFailure(c: Context, error: OutcallError): Response {
  return c.json(failure(error), error.status);
}
