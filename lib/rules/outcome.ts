/**
 * What a condition can come to: true, false, unknown, or failed.
 *
 * An unknown condition also says whether it may still come true, and still come false, once the facts
 * that its layer is waiting for are known (PENDING_FACTS); waiting for a fact that never comes makes
 * neither possible. So "an allow rule counts when true, or unknown only for want of such a fact" is
 * one bit, and `&&`, `||` and `!` are bit operations. Nothing here throws; a failure is a value,
 * because an exception in a block rule must block and not escape (decision D9).
 */
import { isTooLarge } from "./facts.ts";
import type { FactName } from "./language.ts";
import type { Facts } from "./types.ts";

/** May be, or become, true. */
export const CAN_BE_TRUE = 1;
/** May be, or become, false. */
export const CAN_BE_FALSE = 2;
/** The condition is unknown; the two bits above say what is still possible. */
export const UNKNOWN_BIT = 4;
const FAILED_BIT = 8;

/** The condition holds. */
export const TRUE = CAN_BE_TRUE;
/** The condition does not hold. */
export const FALSE = CAN_BE_FALSE;
/** The condition could not be evaluated; {@linkcode Evaluation.failure} says why. */
export const FAILED = FAILED_BIT;
/** Waits for facts that a later layer will know. */
export const UNKNOWN_PENDING = UNKNOWN_BIT | CAN_BE_TRUE | CAN_BE_FALSE;
/** Waits for a fact that never comes. */
export const UNKNOWN_NEVER = UNKNOWN_BIT;

/** TRUE, FALSE, FAILED, or the unknown bit with what is still possible. */
export type Outcome = number;

/** A value that is not known. */
export class Unknown {
  constructor(readonly outcome: Outcome) {}
}

/** A value that could not be computed. */
export class Failure {
  constructor(readonly message: string) {}
}

/** A value that a later layer will know. */
export const PENDING = new Unknown(UNKNOWN_PENDING);
/** A value that nobody will ever know. */
export const NEVER = new Unknown(UNKNOWN_NEVER);

/** Everything one evaluation reads and writes. */
export class Evaluation {
  /** Values of the comprehension variables in scope, by slot. */
  readonly variables: unknown[] = [];
  /** Why the last failing part failed, for the operator. */
  failure = "";
  #tooLarge: Map<FactName, boolean> | null = null;

  /**
   * @param facts What is known.
   * @param pending What is not known yet and will be: {@linkcode PENDING_FACTS} of the layer.
   */
  constructor(readonly facts: Facts, readonly pending: ReadonlySet<FactName>) {}

  /**
   * Whether a fact that is a list or a map is larger than the cost bound assumes. It is looked at once,
   * however many rules read it: that takes longer than most conditions.
   */
  isTooLarge(name: FactName, value: unknown): boolean {
    const known = this.#tooLarge?.get(name);
    if (known !== undefined) return known;
    const result = isTooLarge(name, value);
    (this.#tooLarge ??= new Map()).set(name, result);
    return result;
  }

  /**
   * Whether an allow rule counts that comes to this: it holds, or a later layer may find that it does.
   * Where none follows, what nobody knows by then (the length of a chunked body) is no reason.
   */
  allows(outcome: Outcome): boolean {
    return this.pending.size === 0 ? outcome === TRUE : (outcome & CAN_BE_TRUE) !== 0;
  }

  /** Whether a block rule counts that comes to this: it holds, or may hold and no layer follows. */
  blocks(outcome: Outcome): boolean {
    const isOpen = (outcome & UNKNOWN_BIT) !== 0 && (outcome & (CAN_BE_TRUE | CAN_BE_FALSE)) !== 0;
    return outcome === TRUE || (isOpen && this.pending.size === 0);
  }

  /** What stands for a fact that is not there. */
  missing(fact: FactName): Unknown {
    return this.pending.has(fact) ? PENDING : NEVER;
  }
}

/** A condition as a value, where one is used as such. */
export function fromOutcome(outcome: Outcome, evaluation: Evaluation): unknown {
  if (outcome === TRUE) return true;
  if (outcome === FALSE) return false;
  if (outcome === FAILED) return new Failure(evaluation.failure);
  return (outcome & (CAN_BE_TRUE | CAN_BE_FALSE)) === 0 ? NEVER : PENDING;
}

/** The outcome of a condition that failed, and why. */
export function fail(evaluation: Evaluation, message: string): Outcome {
  evaluation.failure = message;
  return FAILED;
}

/** A value as a condition; only true and false hold or do not. */
export function toOutcome(value: unknown, evaluation: Evaluation): Outcome {
  if (value === true) return TRUE;
  if (value === false) return FALSE;
  if (value instanceof Unknown) return value.outcome;
  if (value instanceof Failure) return fail(evaluation, value.message);
  return fail(evaluation, `expected true or false, found ${typeName(value)}`);
}

/** Kleene's and, with failures: false decides, then unknown, then failure. */
export function and(a: Outcome, b: Outcome): Outcome {
  if (a === FALSE || b === FALSE) return FALSE;
  if (a === TRUE) return b;
  if (b === TRUE) return a;
  const possible = (a & b & CAN_BE_TRUE) | ((a | b) & CAN_BE_FALSE);
  return ((a | b) & UNKNOWN_BIT) === 0 ? FAILED : UNKNOWN_BIT | possible;
}

/** Kleene's or: true decides. */
export function or(a: Outcome, b: Outcome): Outcome {
  if (a === TRUE || b === TRUE) return TRUE;
  if (a === FALSE) return b;
  if (b === FALSE) return a;
  const possible = ((a | b) & CAN_BE_TRUE) | (a & b & CAN_BE_FALSE);
  return ((a | b) & UNKNOWN_BIT) === 0 ? FAILED : UNKNOWN_BIT | possible;
}

/** Swaps what is possible; unknown and failed stay so. */
export function not(a: Outcome): Outcome {
  const swapped = ((a & CAN_BE_TRUE) << 1) | ((a & CAN_BE_FALSE) >> 1);
  return (a & (UNKNOWN_BIT | FAILED_BIT)) | swapped;
}

/** What kind of value this is, for an operator. */
export function typeName(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "a list";
  switch (typeof value) {
    case "string":
      return "a text";
    case "number":
      return "a number";
    case "boolean":
      return "true or false";
    default:
      return "a map";
  }
}

/** Whether a value is there: neither unknown nor failed. */
export function isKnown(value: unknown): boolean {
  return !(value instanceof Unknown || value instanceof Failure);
}

/** The one of several arguments that decides the result by not being known; failures come first. */
export function unavailable(values: readonly unknown[]): Failure | Unknown | null {
  let found: Unknown | null = null;
  for (const value of values) {
    if (value instanceof Failure) return value;
    if (value instanceof Unknown && found !== NEVER) found = value;
  }
  return found;
}
