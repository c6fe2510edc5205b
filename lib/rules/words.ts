/** Recorded attempts in words. */
import type { RecordedAttempt } from "./diff.ts";

/** What was attempted, and by whom: `GET example.com:80/a by worker`. */
export function attemptText({ agent, attempt }: RecordedAttempt): string {
  const { host, address, port, method, path, recordType, tool } = attempt;
  const target = host ?? address ?? "";
  const what = tool !== undefined
    ? [tool]
    : recordType !== undefined
    ? ["DNS", target, recordType]
    : [method, `${target}${port === undefined ? "" : `:${port}`}${path ?? ""}`];
  const name = agent?.name ?? "";
  return [...what, name === "" ? undefined : `by ${name}`]
    .filter((part) => part !== undefined && part !== "")
    .join(" ");
}
