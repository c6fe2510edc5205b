/**
 * The one error type that crosses a subsystem boundary on purpose.
 *
 * Everything an operator can cause or mend is thrown as an `OutcallError`; anything else that
 * reaches the top is a defect and is reported as `internal`. The host API turns it into the failure
 * envelope, the CLI into `error: …` with a hint line.
 */

/** HTTP statuses a failure may carry. */
export type FailureStatus = 400 | 401 | 403 | 404 | 405 | 409 | 413 | 422 | 429 | 500 | 503;

/** Where in an operator's file something is wrong; lines and columns count from 1. */
export interface Detail {
  readonly file: string;
  readonly line: number;
  readonly column: number;
  readonly message: string;
}

/** Optional parts of an {@linkcode OutcallError}. */
export interface OutcallErrorOptions extends ErrorOptions {
  /** What the operator can do next, one sentence. */
  readonly hint?: string;
  /** Positions in files, when the failure is about a file. */
  readonly details?: readonly Detail[];
  /** The same positions for people: several lines, each place with its line of the file. */
  readonly report?: string;
}

/** A failure with a stable code, a true HTTP status and, where one is known, a remedy. */
export class OutcallError extends Error {
  override readonly name = "OutcallError";
  readonly hint: string | undefined;
  readonly details: readonly Detail[] | undefined;
  readonly report: string | undefined;

  /**
   * @param status HTTP status the API answers with.
   * @param code Stable dotted code for machines, such as `network.overlap`.
   * @param message Text for people: what happened, and where.
   */
  constructor(
    readonly status: FailureStatus,
    readonly code: string,
    message: string,
    options: OutcallErrorOptions = {},
  ) {
    super(message, options);
    this.hint = options.hint;
    this.details = options.details;
    this.report = options.report;
  }
}

/** The message of anything that was thrown. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
