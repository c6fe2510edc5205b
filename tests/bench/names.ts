/** The names that the benchmarks ask for, and rule sets around them. */

/** Names asked for in a run; every subject gets the same ones. */
export const NAME_COUNT = 1_000;

/** The most that one rule file may have here, to stay far below the limit on its size. */
const RULES_PER_FILE = 1_000;

/** `count` names below `site.example.com` or the like, numbered from 0. */
export function names(label: string, count: number): string[] {
  return Array.from({ length: count }, (_, i) => `${label}-${i}.example.com`);
}

/** Names that the rules of {@linkcode ruleFiles} allow. */
export const ALLOWED_NAMES: readonly string[] = names("site", NAME_COUNT);

/** Names that no rule mentions. */
export const BLOCKED_NAMES: readonly string[] = names("blocked", NAME_COUNT);

/**
 * `count` rules as an operator writes them, one for each of `count` hosts; the first
 * {@linkcode NAME_COUNT} hosts are {@linkcode ALLOWED_NAMES}.
 * @returns File name to YAML text.
 */
export function ruleFiles(count: number): Record<string, string> {
  const files: Record<string, string> = {};
  const hosts = names("site", count);
  for (let first = 0; first < count; first += RULES_PER_FILE) {
    const rules = hosts.slice(first, first + RULES_PER_FILE).map((host, i) =>
      `  - id: allow-${first + i}\n    condition: 'http.host == "${host}"'\n    action: allow\n`
    );
    files[`bench-${first}.yaml`] = `version: "1"\nrules:\n${rules.join("")}`;
  }
  return files;
}
