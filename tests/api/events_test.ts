/** The stream of decisions (server-sent events), read by the platform's own EventSource. */
import { deepEqual, equal, match, ok } from "node:assert/strict";
import { hostApp } from "../../lib/api/host.ts";
import { DecisionLog } from "../../lib/decision.ts";
import { HistoryLookup } from "../../lib/record/lookup.ts";
import { DecisionRecords } from "../../lib/record/records.ts";
import { decisionSchema } from "../../lib/record/schema.ts";
import { eventually } from "../eventually.ts";
import { blockedName } from "../record/support.ts";
import { send, serveHost, withDirectory } from "./running.ts";
import { healthy, services } from "./services.ts";
import { connect } from "node:net";

/** The host API over a real decision log. */
interface Served {
  readonly log: DecisionLog;
  readonly records: DecisionRecords;
  readonly fetch: (request: Request) => Response | Promise<Response>;
  /** Of a Unix socket that serves the same. */
  readonly path: string;
}

function withDecisions(test: (served: Served) => Promise<void>): Promise<void> {
  return withDirectory(async (directory) => {
    const log = new DecisionLog();
    const records = new DecisionRecords(log, new HistoryLookup(`${directory}/none.db`), () => 0);
    const served = { ...services(healthy(), { calls: [] }), decisions: records };
    const app = hostApp(served);
    const path = `${directory}/host.sock`;
    const server = await serveHost(path, served);
    try {
      const peer = { pid: 1, uid: 0, gid: 0 };
      await test({ log, records, path, fetch: (request) => app.fetch(request, { peer }) });
    } finally {
      records.stop();
      await server.close();
    }
  });
}

interface Received {
  readonly event: string;
  readonly id: string;
  readonly host: string | undefined;
}

Deno.test("an EventSource gets decisions and their updates, and resumes by itself where it was", () =>
  withDecisions(async ({ log, records, fetch }) => {
    const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, fetch);
    const source = new EventSource(`http://127.0.0.1:${server.addr.port}/api/v1/events?host=.test`);
    const received: Received[] = [];
    for (const event of ["decision", "update"]) {
      source.addEventListener(event, (message) => {
        const { attempt } = decisionSchema.parse(JSON.parse(message.data));
        received.push({ event, id: message.lastEventId, host: attempt.host });
      });
    }
    try {
      await eventually(() => records.streamCounters.readers === 1);
      const made = log.record(blockedName("a.test"));
      log.record(blockedName("b.org"));
      log.update(made, { count: 2 });
      await eventually(() => received.length === 2);
      records.stop(); // ends the response; the client comes back
      log.record(blockedName("meanwhile.test"));
      await eventually(() => received.length === 3);
      deepEqual(received.map(({ event, host }) => `${event} ${host}`), [
        "decision a.test",
        "update a.test",
        "decision meanwhile.test",
      ]);
      const ids = received.map(({ id }) => Number(id));
      deepEqual(ids.toSorted((a, b) => a - b), ids);
    } finally {
      source.close();
      await server.shutdown();
    }
  }));

Deno.test("a reader that goes away leaves nothing behind", () =>
  withDecisions(async ({ records, path }) => {
    const socket = connect(path);
    socket.write("GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let text = "";
    socket.on("data", (data) => void (text += data));
    await eventually(() => text.includes("retry: 1000\n\n"));
    match(text, /content-type: text\/event-stream/i);
    equal(records.streamCounters.readers, 1);
    socket.destroy();
    await eventually(() => records.streamCounters.readers === 0);
  }));

Deno.test("a reader that does not read costs a bounded queue, and is told what it lost", () =>
  withDecisions(async ({ log, records, path }) => {
    const socket = connect(path);
    socket.pause();
    socket.write("GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    await eventually(() => records.streamCounters.readers === 1);
    await eventually(() => {
      for (let i = 0; i < 2_000; i++) log.record(blockedName(`h${i}.test`));
      return records.streamCounters.lost > 10_000;
    });
    let text = "";
    socket.on("data", (data) => void (text += data));
    socket.resume();
    await eventually(() => text.includes("event: lost\n"));
    ok(/event: lost\ndata: \{"count":[0-9]+,"why":"the reader is too slow"\}\n\n/.test(text));
    socket.destroy();
    await eventually(() => records.streamCounters.readers === 0);
  }));

Deno.test("what a filter or a Last-Event-ID may be is checked", () =>
  withDecisions(async ({ path, fetch }) => {
    for (const query of ["verdict=maybe", "layer=tls", "who=a", "agent=a&agent=b"]) {
      equal((await send(path, "GET", `/api/v1/events?${query}`)).status, 422, query);
    }
    for (const id of ["x", "-1", "1.5", "99999999999999999999"]) {
      const request = new Request("http://localhost/api/v1/events", {
        headers: { "Last-Event-ID": id },
      });
      equal((await fetch(request)).status, 422, id);
    }
  }));

Deno.test("the list takes the stream's filters, and says where the stream goes on", () =>
  withDecisions(async ({ log, path }) => {
    const made = log.record(blockedName("a.test"));
    log.record({ ...blockedName("b.test"), verdict: "allow", reason: "rule" });
    const list = async (query: string): Promise<unknown> =>
      (await send(path, "GET", `/api/v1/decisions?${query}`)).json;
    deepEqual(await list("verdict=block&agent=worker&layer=dns&host=.test&limit=1"), {
      ok: true,
      decisions: [made],
      incomplete: null,
      last_event_id: String(log.sequence),
    });
    const since = new Date(Date.now() + 60_000).toISOString();
    deepEqual(Object(await list(`since=${since}`)).decisions, []);
    equal((await send(path, "GET", "/api/v1/decisions?since=yesterday")).status, 422);
  }));
