/** What needs an operator, and what to run for it. */
import type { DaemonStatus } from "../api/status.ts";
import type { PartHealth } from "../health.ts";

/** One thing to look at. */
export type Attention = DaemonStatus["attention"][number];

/** What is judged; the fields are those of the status. */
export interface Circumstances extends Pick<DaemonStatus, "parts" | "policy"> {
  readonly pendingRequests: number;
  /** How often bridges, ports or tables had to be put right since start-up. */
  readonly repairs: number;
  readonly lastRepair: { readonly at: string; readonly wrong: readonly string[] } | undefined;
}

/** What shows more of a part that is not well. */
const COMMANDS: Readonly<Record<string, string>> = {
  bridge: "outcall bridge up",
  docker: "systemctl status docker",
  rule_engine: "outcall rules check",
  observation: "outcall observe list",
  kernel_log: "cat /proc/net/netfilter/nfnetlink_log",
  dns: "outcall dns status",
  dns_worker: "outcall dns status",
  proxy: "outcall proxy status",
  proxy_worker: "outcall proxy status",
};

function partAttention({ name, state, detail }: PartHealth): Attention {
  return { what: `${name} ${state}: ${detail}`, command: COMMANDS[name] ?? null };
}

/** Most urgent first: what has failed, what is impaired, who waits, what happened. */
export function attentionTo(circumstances: Circumstances): readonly Attention[] {
  const { parts, policy, pendingRequests, repairs, lastRepair } = circumstances;
  const inState = (wanted: PartHealth["state"]): Attention[] =>
    parts.filter(({ state }) => state === wanted).map(partAttention);
  return [
    ...inState("failed"),
    ...inState("degraded"),
    ...(policy.rules > 0 ? [] : [{
      what: "no rules are loaded: agents reach nothing",
      command: "outcall rules check",
    }]),
    ...(pendingRequests === 0 ? [] : [{
      what: pendingRequests === 1
        ? "1 rule request waits for an answer"
        : `${pendingRequests} rule requests wait for an answer`,
      command: "outcall requests list",
    }]),
    ...(lastRepair === undefined || repairs === 0 ? [] : [{
      what: `another program changed the firewall (${lastRepair.wrong.join(", ")}); ` +
        `it was put right ${times(repairs)}, last at ${lastRepair.at}`,
      command: "outcall bridge status",
    }]),
  ];
}

function times(count: number): string {
  return count === 1 ? "once" : `${count} times`;
}
