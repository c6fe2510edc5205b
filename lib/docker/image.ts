/**
 * Image references, read before Docker sees them: `[registry[:port]/]path[:tag][@digest]`, by the
 * grammar of the OCI distribution reference (github.com/distribution/reference, `reference.go`).
 */
import { OutcallError } from "../errors.ts";

/** One image reference in its parts. */
export interface ImageReference {
  /** Registry and path, such as `registry.example:5000/team/agent`. */
  readonly repository: string;
  /** `latest` when neither tag nor digest was given; null beside a digest only. */
  readonly tag: string | null;
  /** Such as `sha256:…`. */
  readonly digest: string | null;
  /** All of it, as Docker is to be asked. */
  readonly text: string;
}

/** Bound of a create request, in ASCII characters. */
const MAX_CHARACTERS = 512;

const DOMAIN_LABEL = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
const DOMAIN = `${DOMAIN_LABEL}(?:\\.${DOMAIN_LABEL})*(?::[0-9]{1,5})?`;
const PATH_PART = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*";
const REFERENCE = new RegExp(
  `^((?:${DOMAIN}/)?${PATH_PART}(?:/${PATH_PART})*)` +
    "(?::([a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}))?" +
    "(?:@([a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,}))?$",
);

/**
 * Takes `text` apart.
 * @throws OutcallError `image.invalid` (400).
 */
export function parse(text: string): ImageReference {
  const match = text.length > MAX_CHARACTERS ? null : REFERENCE.exec(text);
  const repository = match?.[1];
  if (match === null || repository === undefined) {
    throw new OutcallError(
      400,
      "image.invalid",
      `${JSON.stringify(text.slice(0, MAX_CHARACTERS))} is not an image reference`,
      { hint: "Write it as name, name:tag, registry:port/name:tag or name@sha256:digest." },
    );
  }
  const digest = match[3] ?? null;
  const tag = match[2] ?? (digest === null ? "latest" : null);
  const tagPart = tag === null ? "" : `:${tag}`;
  const digestPart = digest === null ? "" : `@${digest}`;
  return { repository, tag, digest, text: `${repository}${tagPart}${digestPart}` };
}
