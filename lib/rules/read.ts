/**
 * Reads the rules directory. Whoever can write there decides what leaves the host, so anything that
 * somebody else could have put or changed there is refused, and refused as a whole.
 */
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  type Stats,
} from "node:fs";
import { messageOf } from "../errors.ts";
import type { Diagnostic } from "./diagnostic.ts";
import { LIMITS } from "./limits.ts";

/** One rule file as read: its full path and its text. */
export interface RuleFile {
  readonly path: string;
  readonly text: string;
}

/** Whether a file is for policy tests alone, by its name. */
export function isTestFile(path: string): boolean {
  return /\.test\.ya?ml$/.test(path);
}

/** What the directory held. Load nothing while there are problems. */
export interface RulesDirectory {
  /** Sorted by name. */
  readonly files: readonly RuleFile[];
  readonly problems: readonly Diagnostic[];
}

const WRITABLE_BY_OTHERS = 0o022;

class UnsafeFile extends Error {
  constructor(readonly code: string, message: string, readonly hint: string) {
    super(message);
  }
}

function problem(path: string, thrown: unknown): Diagnostic {
  const place = { severity: "error" as const, file: path, line: 1, column: 1 };
  return thrown instanceof UnsafeFile
    ? { ...place, code: thrown.code, message: thrown.message, hint: thrown.hint }
    : {
      ...place,
      code: "rules.unreadable",
      message: `cannot be read: ${messageOf(thrown)}`,
      hint: "Check that the file exists and that the daemon's user may read it.",
    };
}

function hasCode(thrown: unknown, code: string): boolean {
  return thrown instanceof Error && "code" in thrown && thrown.code === code;
}

function refuseSharedWriting(path: string, stat: Stats): void {
  if ((stat.mode & WRITABLE_BY_OTHERS) === 0) return;
  throw new UnsafeFile(
    "rules.writable_by_others",
    "is writable by group or others, who could change the policy",
    `Run: chmod go-w ${path}`,
  );
}

function symlinkRefusal(): UnsafeFile {
  return new UnsafeFile(
    "rules.symlink",
    "is a symbolic link, which can be made to point anywhere",
    "Put the real file or directory in its place.",
  );
}

function readText(path: string): string {
  let descriptor: number;
  try {
    // O_NOFOLLOW: no look-then-open race. O_NONBLOCK: opening a FIFO must not hang the daemon.
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    descriptor = openSync(path, flags);
  } catch (thrown) {
    throw hasCode(thrown, "ELOOP") ? symlinkRefusal() : thrown;
  }
  try {
    const stat = fstatSync(descriptor);
    if (!stat.isFile()) {
      throw new UnsafeFile("rules.not_a_file", "is not a regular file", "Remove it or rename it.");
    }
    refuseSharedWriting(path, stat);
    if (stat.size > LIMITS.fileBytes) {
      throw new UnsafeFile(
        "rules.too_large",
        `is larger than ${LIMITS.fileBytes} bytes`,
        "Split it into several files.",
      );
    }
    return decode(readFileSync(descriptor));
  } finally {
    closeSync(descriptor);
  }
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new UnsafeFile("rules.encoding", "is not UTF-8 text", "Save it as UTF-8.");
  }
}

/** Names of the rule files in `dir`, sorted; none when there is no such directory. */
function ruleFileNames(dir: string): string[] {
  let stat: Stats;
  try {
    stat = lstatSync(dir);
  } catch (thrown) {
    // S003-EC-013: start with an empty policy, which denies everything.
    if (hasCode(thrown, "ENOENT")) return [];
    throw thrown;
  }
  if (stat.isSymbolicLink()) throw symlinkRefusal();
  if (!stat.isDirectory()) {
    throw new UnsafeFile(
      "rules.not_a_directory",
      "is not a directory",
      "Name the directory that holds the rule files.",
    );
  }
  refuseSharedWriting(dir, stat);
  const names = readdirSync(dir).filter((name) => /\.ya?ml$/.test(name)).sort();
  if (names.length > LIMITS.files) {
    throw new UnsafeFile(
      "rules.too_many_files",
      `holds ${names.length} rule files; the limit is ${LIMITS.files}`,
      "Merge some of them.",
    );
  }
  return names;
}

/** Reads every `.yaml` and `.yml` file of `dir` (S003-FR-001). Never throws. */
export function readRulesDir(dir: string): RulesDirectory {
  const files: RuleFile[] = [];
  const problems: Diagnostic[] = [];
  let names: string[] = [];
  try {
    names = ruleFileNames(dir);
  } catch (thrown) {
    problems.push(problem(dir, thrown));
  }
  let totalBytes = 0;
  for (const name of names) {
    const path = `${dir.replace(/\/+$/, "")}/${name}`;
    try {
      const text = readText(path);
      totalBytes += new TextEncoder().encode(text).length;
      files.push({ path, text });
    } catch (thrown) {
      problems.push(problem(path, thrown));
    }
    if (totalBytes > LIMITS.totalBytes) {
      const message = `the rule files together are larger than ${LIMITS.totalBytes} bytes`;
      const hint = "Remove rules that are no longer needed.";
      problems.push(problem(dir, new UnsafeFile("rules.too_large", message, hint)));
      break;
    }
  }
  return { files, problems };
}
