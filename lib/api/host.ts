/**
 * The operator API on the host socket. A handler reads the request, calls one service, and wraps
 * what it returns; deciding who may connect is the server's business (lib/api/operators.ts).
 */
import { stream } from "hono/streaming";
import { OutcallError } from "../errors.ts";
import { typeName } from "../dns/codes.ts";
import { decisionRoutes } from "./decisions.ts";
import { worst } from "../health.ts";
import { act, show } from "./endpoint.ts";
import { failure, presentable, success } from "./envelope.ts";
import { explainRoutes } from "./explain.ts";
import { dnsTestQuery } from "./facts.ts";
import { grantRoutes } from "./grants.ts";
import { NDJSON } from "./ndjson.ts";
import { observationRoutes } from "./observe.ts";
import { nothing } from "./parse.ts";
import type { DnsTestResult } from "./replies.ts";
import { type ApiApp, apiApp, type ApiContext, readBody, readQuery, type Route } from "./router.ts";
import { requestRoutes } from "./requests.ts";
import { ruleFields, ruleRoutes } from "./rules.ts";
import {
  agentAttach,
  agentJoin,
  containerCreate,
  containerName,
  containerRemove,
  containerStop,
  dnsCacheQuery,
  imagePull,
  networkCreate,
  networkName,
} from "./schemas.ts";
import type { HostServices } from "./services.ts";
import { statusRoutes } from "./status.ts";
import { suggestRoutes } from "./suggest.ts";

/** A blank line this often keeps a silent stream from looking dead to the client. */
const STREAM_HEARTBEAT_MS = 10_000;

/** The operator API over `services`. Serve it with {@linkcode serveUnix}. */
export function hostApp(services: HostServices): ApiApp {
  return apiApp([
    ...bridgeRoutes(services),
    ...ruleRoutes(services),
    ...grantRoutes(services.grants),
    ...dnsRoutes(services),
    ...networkRoutes(services),
    ...containerRoutes(services),
    ...agentRoutes(services),
    ...observationRoutes(services.observations),
    ...decisionRoutes(services.decisions),
    ...explainRoutes(services),
    ...suggestRoutes(services),
    ...requestRoutes(services.requests),
    ...statusRoutes(services.status),
    ...daemonRoutes(services),
  ], "host_api");
}

function bridgeRoutes({ bridge }: HostServices): Route[] {
  return [
    show("/api/v1/bridge", () => bridge.status()),
    act("/api/v1/bridge/up", async (c) => {
      await bridge.up();
      return c.json(success({}));
    }),
    act("/api/v1/bridge/down", async (c) => {
      await bridge.down();
      return c.json(success({}));
    }),
  ];
}

function dnsRoutes({ dns, proxy }: HostServices): Route[] {
  return [
    show("/api/v1/dns", () => dns.status()),
    {
      method: "GET",
      path: "/api/v1/dns/cache",
      handle: (c) => {
        const { entries } = readQuery(c, dnsCacheQuery);
        return c.json(success({
          stats: dns.cacheStats(),
          entries: entries === "true" ? dns.cacheEntries() : [],
        }));
      },
    },
    act("/api/v1/dns/cache/flush", (c) => c.json(success({ entries_flushed: dns.flush() }))),
    {
      method: "GET",
      path: "/api/v1/dns/test",
      handle: async (c) => {
        const { name: hostname, type, agent: agentName } = readQuery(c, dnsTestQuery);
        const rehearsal = await dns.rehearse({ hostname, type, agentName });
        const result: DnsTestResult = {
          hostname: hostname.name,
          record_type: typeName(type),
          decision: rehearsal.verdict,
          reason: rehearsal.reason,
          ...ruleFields(rehearsal.rule),
          rcode: rehearsal.rcode,
          cached: rehearsal.cached,
          type_passes: rehearsal.typePasses,
          addresses: rehearsal.addresses,
        };
        return c.json(success(result));
      },
    },
    show("/api/v1/proxy", () => proxy.status()),
  ];
}

function networkRoutes({ networks }: HostServices): Route[] {
  return [
    show("/api/v1/networks", async () => ({ networks: await networks.list() })),
    {
      method: "GET",
      path: "/api/v1/network",
      handle: async (c) => c.json(success(await networks.status(readQuery(c, networkName).name))),
    },
    show("/api/v1/network/config", () => ({ subnet_block: networks.subnetBlock })),
    act(
      "/api/v1/network/create",
      async (c) => c.json(success(await networks.create(await readBody(c, networkCreate)))),
    ),
    act("/api/v1/network/destroy", async (c) => {
      const { name } = await readBody(c, networkName);
      return c.json(success(await networks.destroy(name)));
    }),
  ];
}

function containerRoutes({ containers }: HostServices): Route[] {
  return [
    show("/api/v1/containers", async () => ({ containers: await containers.list() })),
    {
      method: "GET",
      path: "/api/v1/container",
      handle: async (c) =>
        c.json(success(await containers.inspect(readQuery(c, containerName).name))),
    },
    act(
      "/api/v1/container/create",
      async (c) => c.json(success(await containers.create(await readBody(c, containerCreate)))),
    ),
    act("/api/v1/container/stop", async (c) => {
      const { name, timeout } = await readBody(c, containerStop);
      return c.json(success(await containers.stop(name, timeout)));
    }),
    act("/api/v1/container/remove", async (c) => {
      const { name, force } = await readBody(c, containerRemove);
      return c.json(success(await containers.remove(name, force)));
    }),
    act("/api/v1/container/pull", async (c) => {
      const { image } = await readBody(c, imagePull);
      if (c.req.header("accept")?.includes(NDJSON)) return streamPull(c, containers, image);
      return c.json(success(await containers.pull(image, () => {})));
    }),
  ];
}

/**
 * Lines `{"progress": <text>, "bytes": …}` while the engine works, then the envelope. HTTP's status is sent before
 * the outcome is known, so a failure carries its own as `status`.
 */
function streamPull(
  c: ApiContext,
  containers: HostServices["containers"],
  image: string,
): Response {
  c.header("Content-Type", NDJSON);
  return stream(c, async (body) => {
    const send = (value: object): Promise<unknown> => body.writeln(JSON.stringify(value));
    const heartbeat = setInterval(() => void body.writeln(""), STREAM_HEARTBEAT_MS);
    try {
      await send(
        success(
          await containers.pull(
            image,
            ({ text, ...figures }) => void send({ progress: text, ...figures }),
          ),
        ),
      );
    } catch (thrown) {
      const error = presentable(thrown, "host_api");
      await send({ ...failure(error), status: error.status });
    } finally {
      clearInterval(heartbeat);
    }
  });
}

function agentRoutes({ namespaceAgents }: HostServices): Route[] {
  return [
    act("/api/v1/agent/attach", async (c) => {
      const request = await readBody(c, agentAttach);
      return c.json(success(await namespaceAgents.attach(request, c.env.peer.pid)));
    }),
    act(
      "/api/v1/agent/join",
      async (c) => c.json(success(await namespaceAgents.join(await readBody(c, agentJoin)))),
    ),
  ];
}

function daemonRoutes(services: HostServices): Route[] {
  return [
    // Alive is who answers, so this never fails; what is wrong stands in `status` and the parts.
    show("/api/v1/health", async () => {
      const parts = await services.health();
      return { status: worst(parts), parts };
    }),
    {
      method: "GET",
      path: "/api/v1/ready",
      handle: async (c) => {
        readQuery(c, nothing);
        const parts = await services.health();
        const failed = parts.filter((part) => part.state === "failed");
        if (failed.length === 0) return c.json(success({ status: worst(parts), parts }));
        const reasons = failed.map((part) => `${part.name}: ${part.detail}`).join("; ");
        const error = new OutcallError(503, "daemon.not_ready", `not ready: ${reasons}`);
        return c.json({ ...failure(error), parts }, error.status);
      },
    },
    show("/api/v1/version", () => ({ version: services.version })),
    {
      method: "GET",
      path: "/metrics",
      handle: async (c) => {
        c.header("Content-Type", services.metrics.contentType);
        return c.body(await services.metrics.text());
      },
    },
  ];
}
