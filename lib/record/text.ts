/** A decision in words, for log lines and for the terminal. */
import type { Decision } from "../decision.ts";

/**
 * What was attempted, in one phrase such as `CONNECT api.openai.com:443`.
 * @param shown How a host, address, image or path is written.
 */
export function whatText(
  { attempt }: Decision,
  shown: (text: string) => string = (text) => text,
): string {
  const { method, tool, host, address, image, port, path, recordType, protocol } = attempt;
  const known = host ?? address ?? image;
  const place = known === undefined ? "" : shown(known);
  return [
    method ?? protocol,
    tool,
    port === undefined ? place : `${place}:${port}`,
    path === undefined ? undefined : shown(path),
    recordType,
  ].filter((part) => part !== undefined && part !== "").join(" ");
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** `813 B`, `12.5 MiB`. */
export function bytesText(bytes: number): string {
  const power = bytes < 1 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log2(bytes) / 10));
  const value = bytes / 1024 ** power;
  return `${power === 0 ? value : value.toFixed(1)} ${UNITS[power] ?? ""}`;
}

/** `34 ms`, `2.5 s`. */
export function durationText(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}
