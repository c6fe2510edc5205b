/** How the daemon's parts are (decision D17). */

/** One subsystem's health. */
export interface PartHealth {
  readonly name: string;
  readonly state: "ok" | "degraded" | "failed";
  readonly detail: string;
}

/** The worst state of any part. */
export function worst(parts: readonly PartHealth[]): PartHealth["state"] {
  for (const state of ["failed", "degraded"] as const) {
    if (parts.some((part) => part.state === state)) return state;
  }
  return "ok";
}
