/** A set of rules that an operator names on the command line. */
import { readRulesDir, type RulesDirectory } from "../rules/read.ts";

/**
 * Reads the rule files of `dir`. Unlike the daemon, which starts without rules when its directory is
 * not there, whoever names one means one that exists.
 */
export function readCandidate(dir: string): RulesDirectory {
  const directory = readRulesDir(dir);
  if (directory.files.length > 0 || directory.problems.length > 0 || exists(dir)) return directory;
  return {
    files: [],
    problems: [{
      severity: "error",
      code: "rules.no_directory",
      file: dir,
      line: 1,
      column: 1,
      message: "there is no such directory",
      hint: "Make it, or name the directory that holds the rule files.",
    }],
  };
}

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}
