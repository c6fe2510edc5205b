/** A typed client of the host API over its Unix socket. */
import { createInterface } from "node:readline";
import { createParser, type EventSourceMessage } from "eventsource-parser";
import type { z } from "zod";
import { HostCalls, REQUEST_TIMEOUT_MS } from "./calls.ts";
import {
  type ActiveGrant,
  activeGrants,
  type grantAllow,
  grantsAllowed,
  grantsFlushed,
} from "./grants.ts";
import { decisionExplanation, type DecisionExplanationReply } from "./explain.ts";
import { decisionList, decisionStats } from "./decisions.ts";
import { NDJSON } from "./ndjson.ts";
import { type ActiveObservation, observationList, observationsEnded } from "./observe.ts";
import * as replies from "./replies.ts";
import {
  ruleRequest,
  ruleRequestApproved,
  ruleRequestExtended,
  ruleRequestList,
  ruleRequestRejected,
  type RuleRequestReply,
} from "./requests.ts";
import type { DiffResult, DnsTestResult, ExplainResult, ExpressionReply } from "./replies.ts";
import { STOP_TIMEOUT_DEFAULT_SECS } from "./schemas.ts";
import { type DaemonStatus, daemonStatus } from "./status.ts";
import { suggestion, type SuggestionReply } from "./suggest.ts";
import type {
  AgentAttachment,
  AgentAttachRequest,
  AgentJoinRequest,
  BridgeStatus,
  ContainerCreateRequest,
  ContainerCreateResult,
  ContainerDetail,
  ContainerInfo,
  DnsCacheEntry,
  DnsCacheStats,
  DnsStatus,
  NetworkCreateRequest,
  NetworkCreateResult,
  NetworkStatus,
  ProxyStatus,
  PullProgress,
  ReloadResult,
  RuleDetail,
  RuleSummary,
} from "./services.ts";
import type { DecisionFilter } from "../record/filter.ts";
import type { DecisionStats } from "../record/table.ts";
import type { RuleCounter } from "../rules/counters.ts";
import type { RuleFile } from "../rules/read.ts";
import type { RequestSpec } from "../rules/request.ts";

/** Which decisions to list. */
export interface DecisionListQuery extends DecisionFilter {
  /** ISO 8601. */
  readonly since?: string | undefined;
  readonly limit: number;
}

/**
 * The host API as functions. Each throws the OutcallError that the daemon answered with, or
 * `daemon.unreachable` (503), or `daemon.bad_reply` (500) when what answers is no outcalld.
 */
export class HostClient {
  readonly #calls: HostCalls;

  /** @param socketPath Path of the host socket. Nothing is opened before the first call. */
  constructor(socketPath: string) {
    this.#calls = new HostCalls(socketPath);
  }

  /** The daemon's state on one screen. */
  status(): Promise<DaemonStatus> {
    return this.#calls.get(daemonStatus, "/api/v1/status");
  }

  /** State of the default bridge. */
  bridgeStatus(): Promise<BridgeStatus> {
    return this.#calls.get(replies.bridgeStatus, "/api/v1/bridge");
  }

  /** Creates or adopts the bridge and applies the firewall. */
  async bridgeUp(): Promise<void> {
    await this.#calls.post(replies.done, "/api/v1/bridge/up");
  }

  /** Tears bridge and firewall down. */
  async bridgeDown(): Promise<void> {
    await this.#calls.post(replies.done, "/api/v1/bridge/down");
  }

  /** The rules in force, in evaluation order. */
  async rules(): Promise<readonly RuleSummary[]> {
    return (await this.#calls.get(replies.ruleList, "/api/v1/rules")).rules;
  }

  /** One rule in full. */
  rule(id: string): Promise<RuleDetail> {
    return this.#calls.get(replies.ruleDetail, `/api/v1/rule/${encodeURIComponent(id)}`);
  }

  /** What each rule did since it was loaded, in evaluation order. */
  async ruleCounters(): Promise<readonly RuleCounter[]> {
    return (await this.#calls.get(replies.ruleCounters, "/api/v1/rules/counters")).rules;
  }

  /** Evaluates a condition on `context`: JSON as `POST /api/v1/rule/evaluate` takes it. */
  testExpression(expression: string, context: unknown): Promise<ExpressionReply> {
    return this.#calls.post(replies.expressionReply, "/api/v1/rule/test", { expression, context });
  }

  /** What the rules in force say to a hypothetical request. */
  explain(request: RequestSpec): Promise<ExplainResult> {
    return this.#calls.post(replies.explainResult, "/api/v1/rules/explain", request);
  }

  /** Why a recorded decision came out as it did; `decisions.not_found` when it is not known. */
  explainDecision(id: string): Promise<DecisionExplanationReply> {
    const path = `/api/v1/decisions/${encodeURIComponent(id)}/explain`;
    return this.#calls.get(decisionExplanation, path);
  }

  /**
   * Rules for what an agent was seen to do since a time in ISO 8601; `suggest.nothing` without any.
   * @param blocked Cover what was refused for want of a rule, too.
   */
  suggest(agent: string, since: string, blocked: boolean): Promise<SuggestionReply> {
    return this.#calls.get(suggestion, "/api/v1/suggest", {
      agent,
      since,
      blocked: String(blocked),
    });
  }

  /** What would change with these rule files; `rules.invalid` when they cannot be loaded. */
  diffRules(files: readonly RuleFile[]): Promise<DiffResult> {
    return this.#calls.post(replies.diffResult, "/api/v1/rules/diff", { files });
  }

  /** Loads the rules directory anew; `rules.invalid` when the old set stays. */
  reloadRules(): Promise<ReloadResult> {
    return this.#calls.post(replies.reloadResult, "/api/v1/rules/reload");
  }

  /** Rule requests of agents, the pending ones only unless `all` is set; oldest first. */
  async ruleRequests(all: boolean): Promise<readonly RuleRequestReply[]> {
    const path = "/api/v1/requests/rules";
    return (await this.#calls.get(ruleRequestList, path, all ? { status: "all" } : {})).requests;
  }

  /** One rule request. */
  ruleRequest(id: string): Promise<RuleRequestReply> {
    return this.#calls.get(ruleRequest, `/api/v1/requests/rules/${encodeURIComponent(id)}`);
  }

  /** Puts a request's rules in force, for an hour unless `answer` says otherwise. */
  approveRuleRequest(
    id: string,
    answer: {
      readonly for_secs: number | null;
      readonly rule_file?: string;
      readonly reason?: string;
    },
  ): Promise<{ readonly id: string; readonly rules_loaded: number }> {
    const path = `/api/v1/requests/rules/${encodeURIComponent(id)}/approve`;
    return this.#calls.post(ruleRequestApproved, path, answer);
  }

  /** Gives an approval more time, or less, counted from now; null: for ever. */
  extendRuleRequest(
    id: string,
    extension: { readonly for_secs: number | null; readonly reason?: string },
  ): Promise<{ readonly id: string; readonly expires_at: string | null }> {
    const path = `/api/v1/requests/rules/${encodeURIComponent(id)}/extend`;
    return this.#calls.post(ruleRequestExtended, path, extension);
  }

  /** Answers a request with a no. */
  rejectRuleRequest(id: string, reason?: string): Promise<{ readonly id: string }> {
    const path = `/api/v1/requests/rules/${encodeURIComponent(id)}/reject`;
    return this.#calls.post(ruleRequestRejected, path, reason === undefined ? {} : { reason });
  }

  /** State of the DNS filter. */
  dnsStatus(): Promise<DnsStatus> {
    return this.#calls.get(replies.dnsStatus, "/api/v1/dns");
  }

  /** What a query for `name` by the agent named `agent` (absent: one without a name) would get. */
  dnsTest(name: string, type: string, agent?: string): Promise<DnsTestResult> {
    return this.#calls.get(replies.dnsTestResult, "/api/v1/dns/test", { name, type, agent });
  }

  /** Counters of the DNS cache, and its content when `entries` is set. */
  dnsCache(
    entries: boolean,
  ): Promise<{ readonly stats: DnsCacheStats; readonly entries: readonly DnsCacheEntry[] }> {
    return this.#calls.get(replies.dnsCache, "/api/v1/dns/cache", {
      entries: entries ? "true" : undefined,
    });
  }

  /** Empties the DNS cache. */
  dnsFlush(): Promise<{ readonly entries_flushed: number }> {
    return this.#calls.post(replies.dnsFlush, "/api/v1/dns/cache/flush");
  }

  /** Grants in force. */
  async grantList(): Promise<readonly ActiveGrant[]> {
    return (await this.#calls.get(activeGrants, "/api/v1/rules/active")).rules;
  }

  /** Opens destinations to one agent for a time. */
  grantAllow(wanted: z.input<typeof grantAllow>): Promise<z.output<typeof grantsAllowed>> {
    return this.#calls.post(grantsAllowed, "/api/v1/rule/allow", wanted);
  }

  /** Ends a grant. */
  async grantRevoke(id: string): Promise<void> {
    await this.#calls.post(replies.done, "/api/v1/rule/revoke", { id });
  }

  /** Ends all grants. */
  grantFlush(): Promise<{ readonly removed: number }> {
    return this.#calls.post(grantsFlushed, "/api/v1/rules/flush");
  }

  /** State of the proxy. */
  proxyStatus(): Promise<ProxyStatus> {
    return this.#calls.get(replies.proxyStatus, "/api/v1/proxy");
  }

  /** Makes a network, or finds the one that is there. */
  createNetwork(wanted: NetworkCreateRequest): Promise<NetworkCreateResult> {
    return this.#calls.post(replies.networkCreated, "/api/v1/network/create", wanted);
  }

  /** One network; the default one without a name. */
  network(name?: string): Promise<NetworkStatus> {
    return this.#calls.get(replies.networkStatus, "/api/v1/network", { name });
  }

  /** All managed networks. */
  async networks(): Promise<readonly NetworkStatus[]> {
    return (await this.#calls.get(replies.networkList, "/api/v1/networks")).networks;
  }

  /** Removes a network without containers; the default one without a name. */
  destroyNetwork(name?: string): Promise<{ readonly name: string; readonly destroyed: boolean }> {
    return this.#calls.post(replies.networkDestroyed, "/api/v1/network/destroy", { name });
  }

  /** Has a cable laid from this process's network namespace to a managed network. */
  attachAgent(wanted: AgentAttachRequest): Promise<AgentAttachment> {
    return this.#calls.post(replies.agentAttachment, "/api/v1/agent/attach", wanted);
  }

  /** Has that cable plugged in. */
  async joinAgent(port: string, observeSecs?: number): Promise<void> {
    const wanted: AgentJoinRequest = { port, observe_secs: observeSecs };
    await this.#calls.post(replies.agentJoined, "/api/v1/agent/join", wanted);
  }

  /** Agents that are observed. */
  async observations(): Promise<readonly ActiveObservation[]> {
    return (await this.#calls.get(observationList, "/api/v1/observations")).observations;
  }

  /** Ends the observation of an agent, by name or key. */
  endObservation(agent: string): Promise<{ readonly ended: number }> {
    return this.#calls.post(observationsEnded, "/api/v1/observations/end", { agent });
  }

  /** Creates and starts an agent container. */
  createContainer(wanted: ContainerCreateRequest): Promise<ContainerCreateResult> {
    return this.#calls.post(replies.containerCreated, "/api/v1/container/create", wanted);
  }

  /** All agent containers, stopped ones too. */
  async containers(): Promise<readonly ContainerInfo[]> {
    return (await this.#calls.get(replies.containerList, "/api/v1/containers")).containers;
  }

  /** One agent container. */
  container(name: string): Promise<ContainerDetail> {
    return this.#calls.get(replies.containerDetail, "/api/v1/container", { name });
  }

  /** Stops an agent container, by force after `timeoutSecs`. */
  stopContainer(
    name: string,
    timeoutSecs: number = STOP_TIMEOUT_DEFAULT_SECS,
  ): Promise<{ readonly name: string; readonly stopped: boolean }> {
    return this.#calls.call(replies.containerStopped, {
      method: "POST",
      path: "/api/v1/container/stop",
      body: { name, timeout: timeoutSecs },
      timeoutMs: REQUEST_TIMEOUT_MS + timeoutSecs * 1_000,
    });
  }

  /** Removes an agent container; a running one only with `force`. */
  removeContainer(
    name: string,
    force: boolean,
  ): Promise<{ readonly name: string; readonly removed: boolean }> {
    return this.#calls.post(replies.containerRemoved, "/api/v1/container/remove", { name, force });
  }

  /** Pulls an image, however long it takes, as long as the daemon gives signs of life. */
  async pullImage(
    image: string,
    onProgress: (progress: PullProgress) => void,
  ): Promise<{ readonly image: string; readonly pulled: boolean }> {
    const response = await this.#calls.send({
      method: "POST",
      path: "/api/v1/container/pull",
      body: { image },
      accept: NDJSON,
    });
    if (response.headers["content-type"] !== NDJSON) {
      return this.#calls.read(
        replies.imagePulled,
        response.statusCode,
        await this.#calls.text(response),
      );
    }
    let last = "";
    try {
      for await (const line of createInterface({ input: response })) {
        const progress = progressIn(line);
        if (progress !== null) onProgress(progress);
        else if (line !== "") last = line;
      }
    } catch (cause) {
      throw this.#calls.unreachable(cause);
    }
    return this.#calls.read(replies.imagePulled, undefined, last);
  }

  /** Recorded decisions, oldest first. */
  decisions(query: DecisionListQuery): Promise<z.output<typeof decisionList>> {
    const { limit, ...filter } = query;
    return this.#calls.get(decisionList, "/api/v1/decisions", { ...filter, limit: String(limit) });
  }

  /** Counts over recorded decisions. */
  decisionStats(query: Omit<DecisionListQuery, "limit">): Promise<DecisionStats> {
    return this.#calls.get(decisionStats, "/api/v1/decisions/stats", { ...query });
  }

  /**
   * Events about decisions as they come, until the daemon ends the stream.
   * @param lastEventId Resumes after this event.
   */
  async *events(filter: DecisionFilter, lastEventId?: string): AsyncGenerator<EventSourceMessage> {
    const response = await this.#calls.send({
      method: "GET",
      path: "/api/v1/events",
      query: { ...filter },
      accept: "text/event-stream",
      lastEventId,
    });
    if (response.statusCode !== 200) {
      this.#calls.read(replies.done, response.statusCode, await this.#calls.text(response));
    }
    const messages: EventSourceMessage[] = [];
    const parser = createParser({ onEvent: (message) => void messages.push(message) });
    const decoder = new TextDecoder();
    try {
      for await (const chunk of response) {
        parser.feed(decoder.decode(chunk, { stream: true }));
        yield* messages.splice(0);
      }
    } catch (cause) {
      throw this.#calls.unreachable(cause);
    } finally {
      response.destroy();
    }
  }
}

function progressIn(line: string): PullProgress | null {
  if (line === "") return null;
  try {
    const read = replies.pullProgress.safeParse(JSON.parse(line));
    if (!read.success) return null;
    const { progress: text, ...figures } = read.data;
    return { text, ...figures };
  } catch {
    return null;
  }
}
