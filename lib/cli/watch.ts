/**
 * `outcall requests watch`: shows requests as they come, and takes an answer to each by one key.
 *
 * A key counts for the request on the screen and for no other: what was typed before the question
 * stands is forgotten, and the question goes when somebody else has answered.
 */
import { checkProposal } from "../agent/candidate.ts";
import type { HostClient } from "../api/client.ts";
import type { RuleRequestReply } from "../api/requests.ts";
import { messageOf, OutcallError } from "../errors.ts";
import { printable } from "../printable.ts";
import { Keys, LEAVE, orAfter } from "./keys.ts";
import { type Narrowing, narrowings } from "./narrow.ts";
import { writeOut } from "./output.ts";
import {
  approvedLine,
  durationText,
  rejectedLine,
  requestLines,
  ruleLines,
} from "./request_lines.ts";

const POLL_MS = 500;
/** Refused attempts that are looked through for what could be meant. */
const RECENT_DECISIONS = 100;

/** What a key approves for, in seconds. */
const KEY_SECS: Readonly<Record<string, number>> = { "1": 900, "2": 3_600, "3": 86_400 };

/** How many were answered here. */
export interface Watched {
  readonly answered: number;
}

/**
 * Watches until `q` or Ctrl-C; without a terminal at the keys it only shows, until it is killed.
 * @throws OutcallError `daemon.unreachable` when there is none at the start; later ones are waited for.
 */
export async function watch(client: HostClient): Promise<Watched> {
  await client.ruleRequests(false);
  if (!Deno.stdin.isTerminal()) return await new Watch(client, null).run();
  using keys = new Keys();
  const leave = (): void => {
    keys[Symbol.dispose]();
    Deno.exit(0);
  };
  for (const signal of ["SIGTERM", "SIGHUP"] as const) Deno.addSignalListener(signal, leave);
  Deno.addSignalListener("SIGINT", () => {
    if (!keys.isLent) leave();
  });
  return await new Watch(client, keys).run();
}

class Watch {
  readonly #seen = new Set<string>();
  #answered = 0;
  #isAway = false;

  constructor(readonly client: HostClient, readonly keys: Keys | null) {}

  async run(): Promise<Watched> {
    say([this.keys === null ? "Waiting for requests." : "Waiting for requests; q ends it."]);
    for (;;) {
      const pending = (await this.#patiently(() => this.client.ruleRequests(false))) ?? [];
      const request = pending.find(({ id }) => !this.#seen.has(id));
      if (request === undefined) {
        if (await this.#wantsToLeave()) return { answered: this.#answered };
        continue;
      }
      this.#seen.add(request.id);
      const more = pending.filter(({ id }) => !this.#seen.has(id)).length;
      say(["", ...requestLines(request), ...(more === 0 ? [] : [`(${more} more to answer)`])]);
      if (this.keys === null) continue;
      if (!await this.#ask(this.keys, request)) return { answered: this.#answered };
    }
  }

  /** Waits a moment, or for somebody who wants to leave. */
  async #wantsToLeave(): Promise<boolean> {
    if (this.keys === null) return await new Promise((done) => setTimeout(done, POLL_MS, false));
    const typed = await orAfter(POLL_MS, this.keys.next());
    return typed !== null && (typed.includes("q") || typed.includes(LEAVE));
  }

  /** What `ask` gives; null while the daemon is away, which is said once. */
  async #patiently<T>(ask: () => Promise<T>): Promise<T | null> {
    try {
      const answer = await ask();
      if (this.#isAway) say(["The daemon is back."]);
      this.#isAway = false;
      return answer;
    } catch (thrown) {
      if (!(thrown instanceof OutcallError) || thrown.code !== "daemon.unreachable") throw thrown;
      if (!this.#isAway) say([`error: ${thrown.message}; waiting for it`]);
      this.#isAway = true;
      return null;
    }
  }

  /** Gets one request answered, or skipped. @returns false to leave. */
  async #ask(keys: Keys, request: RuleRequestReply): Promise<boolean> {
    const { id } = request;
    let ruleFile: string | null = null;
    for (;;) {
      if (!await keys.forget()) return false;
      say([menuOf(request)]);
      const key = await this.#keyOrNews(keys, id);
      if (key === null || key === "s") return true;
      if (key === "q" || key === LEAVE) return false;
      const seconds = key === "a" ? request.for_secs : KEY_SECS[key] ?? null;
      let answer: (() => Promise<string>) | null = null;
      if (key === "r") {
        const reason = await this.#reason(keys);
        if (reason === null) continue;
        answer = async () => {
          await this.client.rejectRuleRequest(id, reason === "" ? undefined : reason);
          return rejectedLine(id);
        };
      } else if (key === "n") {
        ruleFile = await this.#narrowed(keys, request, ruleFile ?? request.rule_file) ?? ruleFile;
      } else if (key === "e") {
        ruleFile = await edited(keys, ruleFile ?? request.rule_file) ?? ruleFile;
      } else if (seconds !== null) {
        answer = async () => {
          const narrower = ruleFile === null ? {} : { rule_file: ruleFile };
          const wanted = { for_secs: seconds, ...narrower };
          const { rules_loaded: loaded } = await this.client.approveRuleRequest(id, wanted);
          return `${approvedLine(id, loaded)} It ends in ${durationText(seconds)}.`;
        };
      }
      if (answer !== null && await this.#settles(answer)) return true;
    }
  }

  /** A key, or null once somebody else has answered. */
  async #keyOrNews(keys: Keys, id: string): Promise<string | null> {
    for (;;) {
      const typed = await orAfter(POLL_MS, keys.next());
      // Several at once are pasted or held down, and nobody's decision.
      if (typed !== null) {
        if (typed.includes(LEAVE)) return LEAVE;
        if (/^[123anersq]$/.test(typed)) return typed;
        continue;
      }
      const now = await this.#patiently(() => this.client.ruleRequest(id));
      if (now === null || now.status === "pending") continue;
      say([`${id} was answered by ${now.decided_by ?? "somebody"} meanwhile: ${now.status}.`]);
      return null;
    }
  }

  /** Whether an answer went through, or somebody else's did before. */
  async #settles(answer: () => Promise<string>): Promise<boolean> {
    try {
      say([await answer()]);
      this.#answered++;
      return true;
    } catch (thrown) {
      if (!(thrown instanceof OutcallError)) throw thrown;
      say([
        `error: ${thrown.message}`,
        ...(thrown.hint === undefined ? [] : [`hint: ${thrown.hint}`]),
      ]);
      return thrown.code === "requests.answered" || thrown.code === "requests.not_found";
    }
  }

  /** Null: rather not. */
  async #reason(keys: Keys): Promise<string | null> {
    if (!await keys.forget()) return null;
    say(["Reason, for the agent (Enter: none; Ctrl-D: back):"]);
    return await keys.line();
  }

  async #narrowed(
    keys: Keys,
    { id, agent }: RuleRequestReply,
    ruleFile: string,
  ): Promise<string | null> {
    const offered = narrowings(ruleFile, agent, await this.#tried(agent)).slice(0, 9);
    if (offered.length === 0) {
      say(["It cannot be narrowed by a key; [e] edits it."]);
      return null;
    }
    say(["Narrow it to:", ...offered.map(({ label }, i) => `  [${i + 1}] ${label}`)]);
    if (!await keys.forget()) return null;
    say(["[1-9] take it  [b] back"]);
    const picked = await this.#pick(keys, offered);
    if (picked === null) return null;
    say([`${id} would now be, ${picked.label}:`, ...ruleLines(picked.ruleFile)]);
    return picked.ruleFile;
  }

  async #pick(keys: Keys, offered: readonly Narrowing[]): Promise<Narrowing | null> {
    for (;;) {
      const typed = await keys.next();
      if (typed === "b" || typed.includes(LEAVE)) return null;
      const picked = /^[1-9]$/.test(typed) ? offered[Number(typed) - 1] : undefined;
      if (picked !== undefined) return picked;
    }
  }

  /** What the agent was refused lately, newest first; nothing when that cannot be told. */
  async #tried(agent: string): Promise<readonly RecentAttempt[]> {
    try {
      const query = { agent, verdict: "block" as const, limit: RECENT_DECISIONS };
      const { decisions } = await this.client.decisions(query);
      return decisions.map(({ attempt }) => attempt).reverse();
    } catch (thrown) {
      if (thrown instanceof OutcallError) return [];
      throw thrown;
    }
  }
}

type RecentAttempt = Awaited<ReturnType<HostClient["decisions"]>>["decisions"][number]["attempt"];

function menuOf({ for_secs: wanted }: RuleRequestReply): string {
  const asAsked = wanted === null ? [] : [`[a] ${durationText(wanted)}, as asked`];
  return [
    ...["[1] 15m", "[2] 1h", "[3] 24h", ...asAsked],
    ...["[n] narrow", "[e] edit", "[r] reject", "[s] skip", "[q] quit"],
  ].join("  ");
}

/** The file as somebody leaves it in the editor; null when it does not load, which is said. */
async function edited(keys: Keys, ruleFile: string): Promise<string | null> {
  const path = await Deno.makeTempFile({ prefix: "outcall-request-", suffix: ".yaml" });
  try {
    await Deno.writeTextFile(path, ruleFile);
    const editor = Deno.env.get("VISUAL") ?? Deno.env.get("EDITOR") ?? "vi";
    // As git and crontab do: the variable may hold options.
    const { success } = await keys.lend(() =>
      new Deno.Command("sh", {
        args: ["-c", `${editor} "$1"`, "editor", path],
        stdin: "inherit",
        stdout: "inherit",
        stderr: "inherit",
      }).spawn().status
    );
    if (!success) throw new Error(`${editor} failed`);
    const text = await Deno.readTextFile(path);
    checkProposal("request.yaml", text);
    say(["It would now be:", ...ruleLines(text)]);
    return text;
  } catch (thrown) {
    say([`error: ${messageOf(thrown)}; it stays as it was`]);
    return null;
  } finally {
    await Deno.remove(path);
  }
}

function say(lines: readonly string[]): void {
  writeOut(lines.map((line) => `${printable(line)}\n`).join(""));
}
