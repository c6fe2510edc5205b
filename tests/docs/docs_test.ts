/**
 * The documentation says what is true: rule files in it load without a warning, commands exist, and
 * docs/cli.md shows exactly what is printed. `OUTCALL_UPDATE_DOCS=1` writes its outputs anew.
 */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import type { RuleRequestService } from "../../lib/api/requests.ts";
import type { DnsService } from "../../lib/api/services.ts";
import { formatDiagnostic } from "../../lib/rules/diagnostic.ts";
import { validate } from "../../lib/rules/validate.ts";
import type { StoredRequest } from "../../lib/store/requests.ts";
import { type ServedPolicy, withPolicy, writeRules } from "../api/policy.ts";
import { healthy, services } from "../api/services.ts";
import { outcall } from "../cli/outcall.ts";
import { connectFacts, dnsFacts } from "../rules/support.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const CLI_PAGE = "docs/cli.md";
const PAGES = [
  "README.md",
  ...[...Deno.readDirSync(`${ROOT}docs`)].map(({ name }) => `docs/${name}`).sort(),
];

/** A fenced block of a page. */
interface Block {
  /** Of its first line, from 1. */
  readonly line: number;
  readonly text: string;
}

/** The blocks of one language, without the indentation of the list they may stand in. */
function blocks(page: string, language: string): Block[] {
  const text = Deno.readTextFileSync(ROOT + page);
  const fence = new RegExp(`^( *)\`\`\`${language}\\n(.*?)^ *\`\`\`$`, "gms");
  return [...text.matchAll(fence)].map(({ index, 1: indent = "", 2: body = "" }) => ({
    line: text.slice(0, index).split("\n").length + 1,
    text: body.split("\n").map((line) => line.slice(indent.length)).join("\n"),
  }));
}

for (const page of PAGES) {
  for (const { line, text } of blocks(page, "yaml")) {
    Deno.test(`the rules at ${page}:${line} load without a warning, and their tests pass`, () => {
      const report = validate({ files: [{ path: page, text }], problems: [] });
      const findings = [...report.errors, ...report.warnings];
      assert.deepEqual(findings.map(formatDiagnostic), []);
      assert.ok(report.rules > 0);
    });
  }
}

Deno.test("the cookbook has at least ten recipes", () => {
  const [, cookbook = ""] = Deno.readTextFileSync(`${ROOT}docs/rules.md`).split("## Cookbook");
  assert.ok(cookbook.split("```yaml").length > 10);
});

/** The words of a command line as a shell splits them; quotes are all that the pages use. */
function wordsOf(line: string): string[] {
  return [...line.matchAll(/'([^']*)'|"([^"]*)"|(\S+)/g)]
    .map(([, single, double, bare]) => single ?? double ?? bare ?? "");
}

/** The commands of a block that begin with `outcall`. */
function commands({ text }: Block): string[] {
  return text.split("\n").flatMap((line) => /^\$ outcall (.*)$/.exec(line)?.[1] ?? []);
}

const [IN_FORCE = "", CANDIDATE = ""] = blocks(CLI_PAGE, "yaml").map(({ text }) => text);

/** What an agent asked for. */
const REQUEST: StoredRequest = {
  id: "rr-aabbcc112233",
  agent_key: "worker",
  agent: "worker",
  container_id: "a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90",
  address: "10.200.0.2",
  network: "outcall-agent-net",
  rule_file: `version: "1"
rules:
  - id: worker-docs
    condition: 'http.host == "docs.example.com"'
    action: allow
`,
  approved_file: null,
  reason: "the task needs the API's documentation",
  for_secs: 3600,
  hits: 2,
  status: "pending",
  created_ms: 0,
  asked_ms: 0,
  decided_ms: null,
  decided_by: null,
  answer: null,
  expires_ms: null,
};

const REQUESTS: RuleRequestService = {
  list: () => [REQUEST],
  get: () => REQUEST,
  events: () => [],
  approve: () => Promise.resolve({ rulesLoaded: 4 }),
  extend: () => Promise.resolve({ expiresMs: Date.parse("2026-05-04T09:30:00.000Z") }),
  reject: () => Promise.resolve(),
};

/** What the filter would say: to an agent that has asked for too many names, and to others. */
const DNS: DnsService = {
  ...services(healthy(), { calls: [] }).dns,
  rehearse: ({ agentName }) => {
    const file = "/etc/outcall/rules.d/agent.yaml";
    return Promise.resolve(
      agentName === "worker"
        ? {
          verdict: "block",
          reason: "name_rate",
          rule: { id: "cdn", file, line: 20 },
          rcode: "SERVFAIL",
          cached: false,
          typePasses: true,
          addresses: ["10.200.0.2"],
        }
        : {
          verdict: "allow",
          reason: "rule",
          rule: { id: "allow-openai", file, line: 3 },
          rcode: "NOERROR",
          cached: true,
          typePasses: true,
          addresses: [],
        },
    );
  },
};

/** The id of the last decision, as the page has it. */
const DECISION_ID = "01kdecision000000";

/** Runs `test` with the daemon that the page is about: its rules, and some traffic. */
function withDaemon(test: (served: ServedPolicy) => Promise<void>): Promise<void> {
  return withPolicy({ "agent.yaml": IN_FORCE }, async (served) => {
    writeRules(`${served.directory}/candidate`, { "agent.yaml": CANDIDATE });
    const broken = CANDIDATE.replace("http.host", "http_host");
    writeRules(`${served.directory}/broken`, { "agent.yaml": broken });
    for (let i = 0; i < 3; i++) {
      served.attempt("dns", dnsFacts("api.openai.com", "worker"));
      served.attempt("connect", connectFacts("api.openai.com", 443, "worker"));
    }
    served.attempt("dns", dnsFacts("example.org", "worker"));
    await test(served);
  }, { requests: REQUESTS, dns: DNS });
}

/** Runs one command of a page; paths are shown as the page shows them, times as one. */
async function run(served: ServedPolicy, command: string): Promise<{ code: number; text: string }> {
  const ids = served.decisions.recent().map(({ id }) => id);
  const id = ids.at(-1) ?? "";
  const words = wordsOf(command).map((word) =>
    ["candidate", "broken"].includes(word)
      ? `${served.directory}/${word}`
      : word === DECISION_ID
      ? id
      : word
  );
  const { code, out, err } = await outcall("--socket", served.path, ...words);
  const text = (out + err)
    .replaceAll(served.rulesDir, "/etc/outcall/rules.d")
    .replaceAll(`${served.directory}/`, "")
    .replaceAll(new RegExp(ids.join("|"), "g"), DECISION_ID)
    .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, "2026-05-04T09:30:00.000Z");
  return { code, text };
}

Deno.test(`${CLI_PAGE} shows what each command prints`, () =>
  withDaemon(async (served) => {
    let page = Deno.readTextFileSync(ROOT + CLI_PAGE);
    for (const block of blocks(CLI_PAGE, "console")) {
      let expected = "";
      for (const command of commands(block)) {
        const { text } = await run(served, command);
        const lines = text.split("\n").map((line) => line.trimEnd()).join("\n");
        expected += `${expected === "" ? "" : "\n"}$ outcall ${command}\n${lines}`;
      }
      if (Deno.env.get("OUTCALL_UPDATE_DOCS") === "1") {
        page = page.replace(block.text, () => expected);
      } else {
        assert.equal(block.text, expected);
      }
    }
    if (Deno.env.get("OUTCALL_UPDATE_DOCS") === "1") Deno.writeTextFileSync(ROOT + CLI_PAGE, page);
  }));

for (const page of PAGES.filter((page) => page !== CLI_PAGE)) {
  Deno.test(`the commands in ${page} exist, with their options`, () =>
    withDaemon(async (served) => {
      for (const command of blocks(page, "console").flatMap(commands)) {
        const { code, text } = await run(served, command);
        assert.notEqual(code, 2, `${command}: ${text}`);
      }
    }));
}

Deno.test(`${CLI_PAGE} shows every command and names every option`, async () => {
  const page = Deno.readTextFileSync(ROOT + CLI_PAGE);
  // What the shells complete is what there is.
  const { out } = await outcall("completion", "bash");
  const missing = [...out.matchAll(/^ *"([^"]*)"\) words="([^"]*)"/gm)].flatMap(
    ([, trail = "", words = ""]) => {
      const options = words.split(" ").filter((word) => word.startsWith("--"));
      const isLeaf = trail !== "" && options.length === words.split(" ").length;
      const command = `outcall${trail.replaceAll("/", " ")}`;
      return [
        ...(isLeaf && !page.includes(command) ? [command] : []),
        ...options.filter((option) => !new RegExp(`${option}\\b`).test(page)),
      ];
    },
  );
  assert.deepEqual(missing, []);
});
