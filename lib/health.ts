/** The parts' health taken together (decision D17). */
import type { PartHealth } from "./api/services.ts";

/** The worst state of any part. */
export function worst(parts: readonly PartHealth[]): PartHealth["state"] {
  for (const state of ["failed", "degraded"] as const) {
    if (parts.some((part) => part.state === state)) return state;
  }
  return "ok";
}
