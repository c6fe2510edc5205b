/** Recorded attempts in words, for log lines and for people. */
import type { RecordedAttempt } from "./diff.ts";

/**
 * What was attempted, in one phrase such as `CONNECT api.openai.com:443`.
 * @param shown How a host, address, image or path is written.
 */
export function whatText(
  { attempt }: Pick<RecordedAttempt, "attempt">,
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

/** The same where nothing else tells who it was and that it was a look-up: `DNS x.org A by worker`. */
export function attemptText(record: RecordedAttempt): string {
  const lookup = record.attempt.recordType === undefined ? "" : "DNS ";
  const name = record.agent?.name ?? "";
  return `${lookup}${whatText(record)}${name === "" ? "" : ` by ${name}`}`;
}
