/**
 * What may be mounted into an agent container (S008-FR-008, FR-009, FR-033, S015-AS-011): nothing
 * that would let it talk to a control socket or change the policy, and nothing over the files that
 * keep it on its leash. This half is about the text of a mount; lib/docker/sources.ts looks at the
 * host's files.
 */
import { OutcallError } from "../errors.ts";

/** One caller mount, `source:destination[:options]`, taken apart. */
export interface Mount {
  /** An absolute host path without `.`, `..` and double slashes, or the name of a volume. */
  readonly source: string;
  readonly isVolume: boolean;
  /** Absolute path in the container, clean likewise. */
  readonly destination: string;
  /** Docker's mount options, such as `ro`. */
  readonly options: readonly string[];
}

/** Where the agent socket appears in a container, in a folder of its own (decision D20). */
export const AGENT_SOCKET_FOLDER = "/run/outcall";
/** The shim in a container (decision D20). */
export const SHIM_DESTINATION = "/usr/local/bin/outcall-agent";

/** Nothing may be mounted on these, above them, or inside them. */
const PROTECTED_DESTINATIONS = [
  AGENT_SOCKET_FOLDER,
  // The name the shim has in older set-ups.
  "/usr/local/bin/outcall",
  SHIM_DESTINATION,
  "/etc/resolv.conf",
];

/**
 * Directories of a usual image that are links to others: a mount on `/var/run/outcall` lands on
 * `/run/outcall`.
 */
const USUAL_LINKS: readonly (readonly [string, string])[] = [["/var/run", "/run"]];

/** Not among them: propagation, by which a later mount on the host would appear inside. */
const OPTIONS = ["ro", "rw", "z", "Z", "nocopy", "private", "rprivate"];

/** Docker's rule for volume names. */
const VOLUME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

function invalid(text: string, reason: string): OutcallError {
  return new OutcallError(
    400,
    "mount.invalid",
    `volume ${JSON.stringify(text.slice(0, 200))}: ${reason}`,
    {
      hint: "Write it as /host/path:/container/path or name:/container/path, with :ro if you like.",
    },
  );
}

/** An absolute path without empty, `.` and `..` parts. */
export function clean(path: string): string {
  const parts: string[] = [];
  for (const part of path.split("/")) {
    if (part === "" || part === ".") continue;
    if (part === "..") parts.pop();
    else parts.push(part);
  }
  return `/${parts.join("/")}`;
}

/** Whether clean path `inner` is `outer` or lies in it. */
function isWithin(inner: string, outer: string): boolean {
  return outer === "/" || inner === outer || inner.startsWith(`${outer}/`);
}

/** Whether mounting one of two clean paths exposes or hides the other. */
export function overlaps(a: string, b: string): boolean {
  return isWithin(a, b) || isWithin(b, a);
}

/** `path` with the usual links of an image followed. */
function withoutUsualLinks(path: string): string {
  for (const [link, target] of USUAL_LINKS) {
    if (isWithin(path, link)) return `${target}${path.slice(link.length)}`;
  }
  return path;
}

/**
 * Takes a caller mount apart and checks its destination.
 * @throws OutcallError `mount.invalid` (400), `mount.protected` (403).
 */
export function parseMount(text: string): Mount {
  // Control characters have no business in a path, and would forge log lines.
  if (/\p{Cc}/u.test(text)) throw invalid(text, "it contains control characters");
  const [source = "", destination = "", optionText, ...more] = text.split(":");
  if (more.length > 0) throw invalid(text, "it has more than three parts");
  if (!destination.startsWith("/")) throw invalid(text, "its destination is not absolute");
  const options = optionText === undefined ? [] : optionText.split(",");
  const unknown = options.find((option) => !OPTIONS.includes(option));
  if (unknown !== undefined) {
    throw invalid(text, `option ${JSON.stringify(unknown)} is not one of ${OPTIONS.join(", ")}`);
  }
  const isVolume = VOLUME.test(source);
  if (!isVolume && !source.startsWith("/")) {
    throw invalid(text, "its source is neither an absolute path nor the name of a volume");
  }
  const mount = {
    source: isVolume ? source : clean(source),
    isVolume,
    destination: clean(destination),
    options,
  };
  const covered = PROTECTED_DESTINATIONS.find((path) =>
    overlaps(withoutUsualLinks(mount.destination), path) || overlaps(mount.destination, path)
  );
  if (covered !== undefined) {
    throw new OutcallError(
      403,
      "mount.protected",
      `bind mount denied - destination "${mount.destination}" covers protected path "${covered}"`,
      { hint: "Mount it somewhere else in the container." },
    );
  }
  return mount;
}

/** A mount whose source would expose `path`. */
export function denied(source: string, path: string): OutcallError {
  return new OutcallError(
    403,
    "mount.denied",
    `bind mount denied - "${source}" exposes protected host path "${path}"`,
    { hint: "Mount a narrower directory." },
  );
}

/** The first of `protectedPaths` that mounting clean path `source` would expose, or undefined. */
export function exposes(source: string, protectedPaths: readonly string[]): string | undefined {
  return protectedPaths.find((path) => overlaps(source, path));
}

/** Docker's text for `mount` with its source replaced by `source`. */
export function bind(mount: Mount, source: string): string {
  return [source, mount.destination, ...mount.options.length > 0 ? [mount.options.join(",")] : []]
    .join(":");
}
