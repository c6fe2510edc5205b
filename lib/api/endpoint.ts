/** The two common kinds of endpoint of the host API. */
import { logger } from "../log.ts";
import { success } from "./envelope.ts";
import { nothing } from "./parse.ts";
import { type ApiContext, readQuery, type Route } from "./router.ts";

const log = logger("host_api");

/** Asks for what a service knows; the query must be empty. */
export function show(path: string, answer: () => object | Promise<object>): Route {
  return {
    method: "GET",
    path,
    handle: async (c) => {
      readQuery(c, nothing);
      return c.json(success(await answer()));
    },
  };
}

/** Changes something, and leaves a line in the log that says who did. */
export function act(path: string, change: (c: ApiContext) => Response | Promise<Response>): Route {
  return {
    method: "POST",
    path,
    handle: (c) => {
      readQuery(c, nothing);
      log.info("{path} by uid {uid}, pid {pid}", {
        path,
        uid: c.env.peer.uid,
        pid: c.env.peer.pid,
      });
      return change(c);
    },
  };
}
