/** Tells a webhook of the operator's about each new rule request. */
import { messageOf } from "../errors.ts";
import { logger } from "../log.ts";
import type { StoredRequest } from "../store/requests.ts";
import type { Proposal } from "./candidate.ts";

const TIMEOUT_MS = 5_000;
/** A webhook that hangs must not gather messages without end. */
const MAX_UNDER_WAY = 16;

const log = logger("agent_api");

/**
 * What posts new requests to `url` as JSON, beside everything else: nothing waits for it, and a
 * request that could not be told is logged and waits in the list all the same.
 */
export function webhook(url: URL): (request: StoredRequest, proposal: Proposal) => void {
  let underWay = 0;
  const post = async (body: string, id: string): Promise<void> => {
    underWay++;
    try {
      const response = await fetch(url, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body,
        redirect: "error", // it was the operator who named the receiver
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
      await response.body?.cancel();
      if (!response.ok) throw new Error(`it answered ${response.status}`);
    } catch (thrown) {
      log.warn("the webhook was not told of {id}: {error}", { id, error: messageOf(thrown) });
    } finally {
      underWay--;
    }
  };
  return (request, { rules, warnings }) => {
    const { id, agent, container_id, address, network, reason, for_secs } = request;
    if (underWay >= MAX_UNDER_WAY) {
      log.warn("the webhook was not told of {id}: it is too slow", { id });
      return;
    }
    const event = "rule_request";
    const asked = { id, agent, container_id, address, network, reason, for_secs };
    const at = new Date(request.created_ms).toISOString();
    void post(JSON.stringify({ event, ...asked, created_at: at, rules, warnings }), id);
  };
}
