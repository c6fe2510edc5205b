/** What the filter would answer to a query that nobody sends: `outcall dns test`. */
import type { Agent, AgentDirectory } from "../agents.ts";
import type { DnsQuestion, DnsRehearsal } from "../api/services.ts";
import type { DecisionLog, NewDecision } from "../decision.ts";
import type { Judge } from "../policy.ts";
import { buildQuery } from "./build.ts";
import { cacheKey, type DnsCache } from "./cache.ts";
import { Rcode } from "./codes.ts";
import { DnsFilter, NotHere } from "./filter.ts";
import type { LookupLimits } from "./limits.ts";
import { wireNameOf } from "./name.ts";
import { isAnswered, judgeName } from "./policy.ts";
import { resolutionOf } from "./resolver.ts";

/**
 * An agent is taken to ask too fast while its newest refusal for that is not older than this; the
 * next one would be on record by then.
 */
const TOO_FAST_FOR_MS = 1000;

/** What a rehearsal works with; nothing of it changes. */
export interface RehearsalParts {
  readonly agents: AgentDirectory;
  /** Where agents are attached now. */
  readonly agentAddresses: () => readonly string[];
  /** The judge of dry runs: it counts nothing. */
  readonly evaluate: Judge;
  readonly generation: () => number;
  readonly decisions: DecisionLog;
  readonly cache: DnsCache;
  readonly limits: LookupLimits;
}

async function agentsNamed(
  { agents, agentAddresses }: RehearsalParts,
  name: string,
): Promise<readonly Agent[]> {
  if (name === "") return [];
  const attached = await Promise.all(agentAddresses().map((address) => agents.identify(address)));
  return attached.filter((agent) => agent !== null).filter((agent) => agent.name === name);
}

function asksTooFast({ decisions }: RehearsalParts, { address }: Agent): boolean {
  const sinceMs = Date.now() - TOO_FAST_FOR_MS;
  return decisions.recent().some(({ source, reason, time }) =>
    source === address && reason === "query_rate" && Date.parse(time) >= sinceMs
  );
}

/** The mnemonic of the code in a reply's header (RFC 1035 §4.1.1). */
function rcodeOf(reply: Uint8Array): string {
  const code = (reply[3] ?? 0) & 0x0f;
  return Object.entries(Rcode).find(([, number]) => number === code)?.[0] ?? `${code}`;
}

/** What one agent would get. The filter itself decides, between parts that hold and send nothing. */
async function rehearseFor(
  agent: Agent,
  { hostname, type }: DnsQuestion,
  parts: RehearsalParts,
): Promise<Omit<DnsRehearsal, "addresses">> {
  const { cache, limits, evaluate, generation } = parts;
  const judgement = judgeName(evaluate, agent, hostname, type);
  const typePasses = isAnswered(type, judgement);
  if (asksTooFast(parts, agent)) {
    const refused = { verdict: "block", reason: "query_rate", rule: null } as const;
    return { ...refused, rcode: "SERVFAIL", cached: false, typePasses };
  }
  const decided: NewDecision[] = [];
  const filter = new DnsFilter({
    agents: { identify: () => agent },
    judge: evaluate,
    generation,
    decisions: {
      record: (decision) => {
        decided.push(decision);
        return { id: "" };
      },
    },
    resolver: {
      cached: (asked, dnssecOk) => resolutionOf(cache.peek(cacheKey(asked, dnssecOk))),
      ask: () => {
        throw new NotHere();
      },
    },
    limits: limits.untouched,
    opener: {
      open: ({ addresses, lifeSecs }) => {
        const opened = new Set(addresses.map(({ text }) => text));
        return Promise.resolve({ addresses: opened, lifeSecs, refusal: null });
      },
    },
  });
  const query = buildQuery(0, { name: wireNameOf(hostname), type }, { dnssecOk: false });
  try {
    const reply = await filter.handle(query, { address: agent.address, transport: "udp" });
    const [decision] = decided;
    if (decision === undefined) throw new Error("the filter decided nothing");
    const { verdict, reason, rule } = decision;
    const rcode = reply === null ? null : rcodeOf(reply);
    return { verdict, reason, rule, rcode, cached: verdict === "allow", typePasses };
  } catch (thrown) {
    if (!(thrown instanceof NotHere)) throw thrown;
    const { reason, rule } = judgement.verdict;
    return { verdict: "allow", reason, rule, rcode: null, cached: false, typePasses };
  }
}

/**
 * What a query would get at this moment. What only a real one finds out is taken to go well: what
 * the upstreams say, and what the kernel opens.
 */
export async function rehearse(
  question: DnsQuestion,
  parts: RehearsalParts,
): Promise<DnsRehearsal> {
  const agents = await agentsNamed(parts, question.agentName);
  const nobody: Agent = { name: question.agentName, address: "", network: "" };
  const [first = nobody, ...others] = agents;
  let worst = await rehearseFor(first, question, parts);
  // Several agents may share a name, and limits are for each of them.
  for (const agent of others) {
    if (worst.verdict === "allow") worst = await rehearseFor(agent, question, parts);
  }
  return { ...worst, addresses: agents.map(({ address }) => address) };
}
