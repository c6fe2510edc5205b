/** Checks what comes in, and says in one message all that is wrong with it. */
import { z } from "zod";
import { OutcallError } from "../errors.ts";

/**
 * `input` as `schema` describes it.
 * @param what What is being read, for the message: `request body` or `query`.
 * @throws OutcallError `request.invalid` (422) naming every field that is wrong.
 */
export function parse<S extends z.ZodType>(schema: S, what: string, input: unknown): z.output<S> {
  const result = schema.safeParse(input);
  if (result.success) return result.data;
  throw new OutcallError(
    422,
    "request.invalid",
    `invalid ${what}: ${result.error.issues.map(issueText).join("; ")}`,
  );
}

function issueText(issue: z.core.$ZodIssue): string {
  const place = issue.path.map(String).join(".");
  if (issue.code === "unrecognized_keys") {
    const names = issue.keys.map((key) => `"${place === "" ? key : `${place}.${key}`}"`);
    return `unknown field ${names.join(", ")}`;
  }
  const message = issue.message.replace(/^Invalid input: /, "");
  return place === "" ? message : `field "${place}": ${message}`;
}

/** Requests that say nothing: any parameter is a mistake. */
export const nothing = z.strictObject({});
