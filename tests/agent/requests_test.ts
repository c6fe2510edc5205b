import { deepEqual, equal, match, ok, rejects, throws } from "node:assert/strict";
import type { Agent } from "../../lib/agents.ts";
import { type Approval, RuleRequests } from "../../lib/agent/requests.ts";
import { OutcallError } from "../../lib/errors.ts";
import { ActivePolicy } from "../../lib/policy.ts";
import { openDatabase } from "../../lib/store/database.ts";

const WORKER: Agent = {
  name: "worker",
  containerId: "a".repeat(64),
  address: "10.200.0.2",
  network: "outcall-agent-net",
};
const OTHER: Agent = { ...WORKER, name: "other", containerId: "b".repeat(64) };

function ruleFile(host: string, more = ""): string {
  return `version: "1"
rules:
  - id: ask-${host.replaceAll(".", "-")}
    condition: 'agent.name == "worker" && http.host == "${host}"'
    action: allow
${more}`;
}

const submission = (text: string): { ruleFile: string; reason: null; forSecs: null } => ({
  ruleFile: text,
  reason: null,
  forSecs: null,
});
const approval = (forSecs: number | null): Approval => ({
  forSecs,
  ruleFile: null,
  reason: null,
  by: "uid 0",
});

function refusedWith(code: string): (thrown: unknown) => boolean {
  return (thrown) => thrown instanceof OutcallError && thrown.code === code;
}

interface World {
  readonly dir: string;
  readonly rulesDir: string;
  readonly policy: ActivePolicy;
  readonly requests: RuleRequests;
}

/** A daemon's policy and requests over the files in `dir`. */
async function open(dir: string): Promise<World> {
  const rulesDir = `${dir}/rules.d`;
  Deno.mkdirSync(rulesDir, { recursive: true, mode: 0o755 });
  const policy: ActivePolicy = new ActivePolicy(
    rulesDir,
    true,
    (path) => requests.isWithdrawn(path),
  );
  const requests: RuleRequests = new RuleRequests({
    database: openDatabase(`${dir}/state`),
    rulesDir,
    policy,
  });
  await policy.reload();
  await requests.start();
  return { dir, rulesDir, policy, requests };
}

async function withWorld(test: (world: World) => Promise<void>): Promise<void> {
  const dir = Deno.makeTempDirSync({ prefix: "outcall-requests-" });
  try {
    const world = await open(dir);
    try {
      await test(world);
    } finally {
      await world.requests.close();
    }
  } finally {
    Deno.removeSync(dir, { recursive: true });
  }
}

const inForce = ({ policy }: World): string[] => policy.list().map(({ id }) => id);
const files = ({ rulesDir }: World): string[] => [...Deno.readDirSync(rulesDir)].map((e) => e.name);

Deno.test("a request waits, changes nothing, and is counted when asked again", () =>
  withWorld(async (world) => {
    const { requests } = world;
    const first = requests.submit(WORKER, submission(ruleFile("a.example")));
    match(first.id, /^rr-[0-9a-f]{12}$/);
    const again = requests.submit(WORKER, submission(ruleFile("a.example")));
    deepEqual([again.id, again.hits, again.status], [first.id, 2, "pending"]);
    deepEqual([inForce(world), files(world)], [[], []]);
    await Promise.resolve();
  }));

Deno.test("an approval writes agent-<id>.yaml for us alone, and loads it (S003-IF-008)", () =>
  withWorld(async (world) => {
    const { requests, rulesDir } = world;
    const { id } = requests.submit(WORKER, submission(ruleFile("a.example")));
    deepEqual(await requests.approve(id, approval(60)), { rulesLoaded: 1 });
    deepEqual(files(world), [`agent-${id}.yaml`]);
    equal((Deno.statSync(`${rulesDir}/agent-${id}.yaml`).mode ?? 0) & 0o777, 0o600);
    equal(requests.own(WORKER, id).status, "approved");
    await rejects(requests.approve(id, approval(60)), refusedWith("requests.answered")); // ADV-HOST-04
    await rejects(requests.reject(id, null, "uid 0"), refusedWith("requests.answered"));
  }));

Deno.test("what asks for a rule that is in force already waits like any other (S004-EC-009)", () =>
  withWorld(async ({ requests, rulesDir, policy }) => {
    Deno.writeTextFileSync(`${rulesDir}/own.yaml`, ruleFile("a.example"), { mode: 0o644 });
    await policy.reload();
    equal(requests.submit(WORKER, submission(ruleFile("a.example"))).status, "pending");
  }));

Deno.test("an operator may put an edited file in force instead", () =>
  withWorld(async (world) => {
    const { id } = world.requests.submit(WORKER, submission(ruleFile("a.example")));
    await world.requests.approve(id, { ...approval(60), ruleFile: ruleFile("b.example") });
    deepEqual(inForce(world), ["ask-b-example"]);
    await rejects(
      world.requests.approve("rr-000000000000", approval(60)),
      refusedWith("requests.not_found"),
    );
  }));

Deno.test("what the rules of this moment refuse stays pending, and nothing changes", () =>
  withWorld(async (world) => {
    const { requests, rulesDir, policy } = world;
    const { id } = requests.submit(WORKER, submission(ruleFile("a.example")));
    // Meanwhile an operator took the same rule id.
    Deno.writeTextFileSync(`${rulesDir}/own.yaml`, ruleFile("a.example"), { mode: 0o644 });
    await policy.reload();
    await rejects(requests.approve(id, approval(60)), refusedWith("rules.invalid"));
    deepEqual([requests.get(id).status, files(world)], ["pending", ["own.yaml"]]);
    equal(inForce(world).length, 1);
  }));

Deno.test("a file that is there already is not replaced (ADV-HOST-06)", () =>
  withWorld(async (world) => {
    const { requests, rulesDir } = world;
    const { id } = requests.submit(WORKER, submission(ruleFile("a.example")));
    Deno.writeTextFileSync(`${rulesDir}/agent-${id}.yaml`, "mine", { mode: 0o600 });
    await rejects(requests.approve(id, approval(60)), refusedWith("requests.file_exists"));
    equal(Deno.readTextFileSync(`${rulesDir}/agent-${id}.yaml`), "mine");
    deepEqual([requests.get(id).status, inForce(world)], ["pending", []]);
  }));

Deno.test("when the time is over the rules end, even if the operator's files are broken by then", () =>
  withWorld(async (world) => {
    const { requests, rulesDir } = world;
    const { id } = requests.submit(WORKER, submission(ruleFile("a.example")));
    await requests.approve(id, approval(1));
    Deno.writeTextFileSync(`${rulesDir}/own.yaml`, "rules: [", { mode: 0o644 });
    while (requests.get(id).status === "approved") {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    deepEqual([inForce(world), files(world)], [[], ["own.yaml"]]);
    equal(requests.get(id).status, "expired");
  }));

Deno.test("requests and grants survive a restart; what ran out meanwhile or was never answered does not load", async () => {
  const dir = Deno.makeTempDirSync({ prefix: "outcall-requests-" });
  try {
    const first = await open(dir);
    const ids = ["a.example", "b.example", "c.example"].map((host) =>
      first.requests.submit(WORKER, submission(ruleFile(host))).id
    );
    const [lasting = "", brief = "", pending = ""] = ids;
    await first.requests.approve(lasting, approval(3_600));
    await first.requests.approve(brief, approval(1));
    await first.requests.close();
    // A crash between writing a file and noting the answer leaves it behind.
    Deno.writeTextFileSync(`${first.rulesDir}/agent-${pending}.yaml`, ruleFile("c.example"), {
      mode: 0o600,
    });
    await new Promise((resolve) => setTimeout(resolve, 1_050));

    const second = await open(dir);
    deepEqual(inForce(second), ["ask-a-example"]);
    deepEqual(ids.map((id) => second.requests.get(id).status), ["approved", "expired", "pending"]);
    await second.requests.close();
  } finally {
    Deno.removeSync(dir, { recursive: true });
  }
});

Deno.test("an extension moves the end of what is in force, and is told in the history", () =>
  withWorld(async (world) => {
    const { requests } = world;
    const { id } = requests.submit(WORKER, { ...submission(ruleFile("a.example")), reason: "why" });
    const more = { forSecs: 3_600, reason: "it takes longer", by: "uid 0" };
    await rejects(requests.extend(id, more), refusedWith("requests.not_approved"));
    await requests.approve(id, approval(1));
    const { expiresMs } = await requests.extend(id, more);
    equal(requests.get(id).expires_ms, expiresMs);
    await new Promise((resolve) => setTimeout(resolve, 1_100));
    deepEqual(inForce(world), ["ask-a-example"]);
    await requests.extend(id, { ...more, forSecs: 1, reason: null });
    while (inForce(world).length > 0) await new Promise((resolve) => setTimeout(resolve, 20));
    while (requests.get(id).status === "approved") {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await rejects(requests.extend(id, more), refusedWith("requests.not_approved"));
    deepEqual(requests.events(id).map(({ event, by, note }) => [event, by, note]), [
      ["asked", "worker", "why"],
      ["approved", "uid 0", null],
      ["extended", "uid 0", "it takes longer"],
      ["extended", "uid 0", null],
      ["expired", null, null],
    ]);
  }));

Deno.test("what is granted anew under the same rule ids replaces what is in force, or nothing changes", () =>
  withWorld(async (world) => {
    const { requests, rulesDir } = world;
    const ask = (more: string): string =>
      requests.submit(WORKER, submission(ruleFile("a.example", more))).id;
    const first = ask("");
    await requests.approve(first, approval(60));
    const second = ask("    log: true\n");
    Deno.writeTextFileSync(`${rulesDir}/own.yaml`, "rules: [", { mode: 0o644 });
    await rejects(requests.approve(second, approval(60)), refusedWith("rules.invalid"));
    deepEqual([inForce(world), requests.get(first).status], [["ask-a-example"], "approved"]);
    Deno.removeSync(`${rulesDir}/own.yaml`);
    await requests.approve(second, approval(60));
    deepEqual([inForce(world), files(world)], [["ask-a-example"], [`agent-${second}.yaml`]]);
    equal(requests.get(first).status, "expired");
    deepEqual(requests.events(first).at(-1), {
      at_ms: requests.events(second).at(-1)?.at_ms,
      event: "replaced",
      by: "uid 0",
      until_ms: null,
      note: second,
    });
    // Another agent's grant is nobody else's to replace.
    const foreign = requests.submit(OTHER, submission(ruleFile("a.example"))).id;
    await rejects(requests.approve(foreign, approval(60)), refusedWith("rules.invalid"));
    equal(requests.get(second).status, "approved");
  }));

Deno.test("an agent sees its own requests only, whatever it calls them (ADV-AGENT-07, ADV-AGENT-08)", () =>
  withWorld(async ({ requests }) => {
    const { id } = requests.submit(WORKER, submission(ruleFile("a.example")));
    for (const asked of [id, "rr-../../escape", "rr-000000000000", ""]) {
      throws(() => requests.own(OTHER, asked), refusedWith("requests.not_found"));
    }
    await Promise.resolve();
  }));

Deno.test("waiting ends with the answer, and with the daemon", () =>
  withWorld(async ({ requests }) => {
    const { id } = requests.submit(WORKER, submission(ruleFile("a.example")));
    const waiting = requests.ownWhenAnswered(WORKER, id, 60_000);
    await requests.reject(id, "no", "uid 0");
    deepEqual((await waiting).answer, "no");
    const other = requests.submit(WORKER, submission(ruleFile("b.example")));
    const unanswered = requests.ownWhenAnswered(WORKER, other.id, 60_000);
    const many = Array.from(
      { length: 7 },
      () => requests.ownWhenAnswered(WORKER, other.id, 60_000),
    );
    await rejects(
      requests.ownWhenAnswered(WORKER, other.id, 60_000),
      refusedWith("requests.too_many"),
    );
    await requests.close();
    equal((await unanswered).status, "pending");
    await Promise.all(many);
  }));

Deno.test("one agent's pending requests are bounded", () =>
  withWorld(async ({ requests }) => {
    for (let i = 0; i < 32; i++) requests.submit(WORKER, submission(ruleFile(`h${i}.example`)));
    throws(
      () => requests.submit(WORKER, submission(ruleFile("more.example"))),
      refusedWith("requests.too_many"),
    );
    ok(requests.submit(OTHER, submission(ruleFile("more.example"))));
    await Promise.resolve();
  }));

Deno.test("what would not load, comes first, or has no rules is refused at once (ADV-AGENT-10)", () =>
  withWorld(async ({ requests }) => {
    const wide = `version: "1"\nrules:\n${
      Array.from({ length: 21 }, (_, i) =>
        `  - { id: r${i}, action: allow, condition: 'http.host == "h${i}.example"' }\n`).join("")
    }`;
    const bomb = `version: "1"\na: &a [x,x,x,x,x,x,x,x,x]\n${
      "bcdefgh".split("").map((name, i) =>
        `${name}: &${name} [${Array(9).fill(`*${"abcdefgh"[i]}`).join(",")}]\n`
      ).join("")
    }rules: *h\n`;
    for (
      const text of [
        "rules: [",
        'version: "1"\nrules: []\n',
        `${ruleFile("a.example")}---\n${ruleFile("b.example")}`,
        ruleFile("a.example", "    priority: 99\n"),
        ruleFile("a.example").replace("http.host", "http_host"),
        wide,
        bomb,
      ]
    ) {
      throws(
        () => requests.submit(WORKER, submission(text)),
        refusedWith("requests.invalid"),
        text,
      );
    }
    await Promise.resolve();
  }));
