/** Reads the JUnit report that `deno test` writes. */

/** What came of some tests. */
export interface Tally {
  readonly passed: number;
  readonly failed: number;
  /** Their names, which say why. */
  readonly skipped: readonly string[];
}

/** Both together. */
export function addTallies(a: Tally, b: Tally): Tally {
  return {
    passed: a.passed + b.passed,
    failed: a.failed + b.failed,
    skipped: [...a.skipped, ...b.skipped],
  };
}

const ENTITIES: Readonly<Record<string, string>> = {
  "&lt;": "<",
  "&gt;": ">",
  "&quot;": '"',
  "&apos;": "'",
  "&amp;": "&",
};

function unescapeXml(text: string): string {
  return text.replace(/&(?:lt|gt|quot|apos|amp);/g, (entity) => ENTITIES[entity] ?? entity);
}

/**
 * Counts the test cases of a report. All text in it is escaped, so a tag is always a tag.
 * `<error>` stands for a test that was cancelled because its file crashed.
 */
export function readJunit(xml: string): Tally {
  let tally: Tally = { passed: 0, failed: 0, skipped: [] };
  for (const [, name = "", body = ""] of xml.matchAll(TEST_CASE)) {
    if (/<(?:failure|error)\b/.test(body)) tally = { ...tally, failed: tally.failed + 1 };
    else if (body.includes("<skipped")) {
      tally = { ...tally, skipped: [...tally.skipped, unescapeXml(name)] };
    } else tally = { ...tally, passed: tally.passed + 1 };
  }
  return tally;
}

const TEST_CASE = /<testcase name="([^"]*)"[^>]*>(.*?)<\/testcase>/gs;
