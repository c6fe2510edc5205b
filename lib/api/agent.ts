/** The agent API on the agent socket. Nothing is offered yet, and everything says so. */
import { OutcallError } from "../errors.ts";
import { sendFailure } from "./envelope.ts";
import { type ApiApp, apiApp } from "./router.ts";

/** The agent API: every request is answered with a 404 that an agent can tell from an outage. */
export function agentApp(): ApiApp {
  return apiApp([], "agent_api").all("*", (c) =>
    sendFailure(
      c,
      new OutcallError(
        404,
        "agent_api.unavailable",
        "the agent API is not available in this version of outcalld",
      ),
    ));
}
