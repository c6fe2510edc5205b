/** Grants on the host API (S009-IF-001 to S009-IF-003): what goes in, what comes out, the routes. */
import { z } from "zod";
import { act, show } from "./endpoint.ts";
import { success } from "./envelope.ts";
import { readBody, type Route } from "./router.ts";

/** How long a grant holds unless the request says otherwise: a look at something, not a policy. */
export const GRANT_DEFAULT_SECS = 900;

/** `POST /api/v1/rule/allow` */
export const grantAllow = z.strictObject({
  /** Name of the agent. */
  container: z.string().optional(),
  /** Address of the agent; one of both must be there. */
  src_ip: z.string().optional(),
  /** IPv4 address or network, or a host name, of which every address is meant. */
  destination: z.string(),
  protocol: z.enum(["tcp", "udp"]).default("tcp"),
  port: z.int(),
  /** Without it {@linkcode GRANT_DEFAULT_SECS}, or no end for a persistent one. */
  expires_in_secs: z.int().optional(),
  /** It comes back after a restart of the daemon. */
  persistent: z.boolean().default(false),
}).refine(
  ({ container, src_ip }) => container !== undefined || src_ip !== undefined,
  "container or src_ip must name the agent",
);

/** `POST /api/v1/rule/revoke` */
const grantRevoke = z.strictObject({ id: z.string() });

/** One grant in force. */
const activeGrant = z.object({
  id: z.string(),
  /** Empty for an agent without a name. */
  container: z.string(),
  src_ip: z.string(),
  destination: z.string(),
  protocol: z.enum(["tcp", "udp"]),
  port: z.int(),
  /** ISO 8601 in UTC. */
  inserted_at: z.string(),
  /** Null: it has no end. */
  expires_in_secs: z.int().nullable(),
  /** It comes back after a restart of the daemon. */
  persistent: z.boolean(),
  /** Who opened it: an operator, or the answer to a look-up that a `direct_ip` rule allows. */
  source: z.enum(["operator", "dns"]),
  /** Names that it follows from. */
  hosts: z.array(z.string()).readonly(),
});

/** `GET /api/v1/rules/active` */
export const activeGrants = z.object({ rules: z.array(activeGrant).readonly() });

/** `POST /api/v1/rule/allow`: the grant, or of a host name the first, and all. */
export const grantsAllowed = activeGrant.extend({ grants: z.array(activeGrant).readonly() });

/** `POST /api/v1/rules/flush`: how many were in force. */
export const grantsFlushed = z.object({ removed: z.int() });

/** A request as the service gets it. */
export type GrantAllowRequest = z.output<typeof grantAllow>;

/** One grant in force. */
export type ActiveGrant = z.output<typeof activeGrant>;

/** What is open to single agents for a time. */
export interface GrantService {
  list(): Promise<readonly ActiveGrant[]>;
  /** One for each address of the destination; at least one. */
  allow(request: GrantAllowRequest): Promise<readonly [ActiveGrant, ...ActiveGrant[]]>;
  /** Throws `grant.unknown` (404). */
  revoke(id: string): Promise<void>;
  flush(): Promise<number>;
}

/** The endpoints. */
export function grantRoutes(grants: GrantService): Route[] {
  return [
    show("/api/v1/rules/active", async () => ({ rules: await grants.list() })),
    act(
      "/api/v1/rule/allow",
      async (c) => {
        const allowed = await grants.allow(await readBody(c, grantAllow));
        return c.json(success({ ...allowed[0], grants: allowed }));
      },
    ),
    act("/api/v1/rule/revoke", async (c) => {
      await grants.revoke((await readBody(c, grantRevoke)).id);
      return c.json(success({}));
    }),
    act("/api/v1/rules/flush", async (c) => c.json(success({ removed: await grants.flush() }))),
  ];
}
