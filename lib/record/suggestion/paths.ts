/** Paths of plain HTTP requests as a clause of a rule: exact where they are few, by folder otherwise. */
import { isOneOf, literal } from "../../rules/draft.ts";

/** Paths that are listed one by one. */
const MAX_EXACT = 4;

/** Folders that are listed one by one. */
const MAX_FOLDERS = 4;

/** A clause, and what to say about it. */
export interface PathClause {
  /** Null: every path. */
  readonly clause: string | null;
  readonly comments: readonly string[];
}

/** The folder that all of the paths are in, with a slash at its end. */
function commonFolder(paths: readonly string[]): string {
  const [first = "/", ...others] = paths;
  let folder = first.slice(0, first.lastIndexOf("/") + 1);
  for (const path of others) {
    while (!path.startsWith(folder)) {
      folder = folder.slice(0, folder.lastIndexOf("/", folder.length - 2) + 1);
    }
  }
  return folder;
}

function firstFolder(path: string): string {
  const end = path.indexOf("/", 1);
  return end < 0 ? path : path.slice(0, end + 1);
}

/** Covers `paths`, each of which begins with a slash. */
export function pathClause(paths: readonly string[]): PathClause {
  const distinct = [...new Set(paths)].sort();
  if (distinct.length <= MAX_EXACT) {
    return { clause: isOneOf("http.path", distinct), comments: [] };
  }
  const common = commonFolder(distinct);
  const widened = `WIDER than what was seen: whole folders, for ${distinct.length} paths`;
  if (common.length > 1) {
    return { clause: `http.path.startsWith(${literal(common)})`, comments: [widened] };
  }
  const groups = Map.groupBy(distinct, firstFolder);
  if (groups.size > MAX_FOLDERS) {
    return {
      clause: null,
      comments: [`WIDER than what was seen: every path, for ${distinct.length} of them`],
    };
  }
  const alternatives = [...groups.values()].map((group) =>
    group.length === 1
      ? isOneOf("http.path", group)
      : `http.path.startsWith(${literal(commonFolder(group))})`
  );
  return { clause: `(${alternatives.join(" || ")})`, comments: [widened] };
}
