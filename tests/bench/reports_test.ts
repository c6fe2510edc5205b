import assert from "node:assert/strict";
import { readReport } from "./dnsperf.ts";
import { readWrk } from "./wrk.ts";

const DNSPERF = `DNS Performance Testing Tool
Version 2.10.0

[Status] Sending queries (to 10.98.0.1:5301)
> NOERROR site-0.example.com A 0.001742
> NXDOMAIN site-1.example.com A 0.000551
[Timeout] Query timed out: msg id 12
[Status] Testing complete (time limit)

Statistics:

  Queries sent:         139843
  Queries completed:    139729 (99.92%)
  Queries lost:         114 (0.08%)

  Response codes:       NOERROR 139000 (99.48%), NXDOMAIN 729 (0.52%)
  Average packet size:  request 37, response 53
  Run time (s):         2.000144
  Queries per second:   69855.837876

  Average Latency (s):  0.002293 (min 0.000018, max 0.032641)
`;

Deno.test("readReport() finds rate, losses, codes and each latency", () => {
  assert.deepEqual(readReport(DNSPERF), {
    answersPerSec: 69855.837876,
    lost: 114,
    codes: { NOERROR: 139000, NXDOMAIN: 729 },
    latenciesSecs: [0.001742, 0.000551],
  });
});

Deno.test("readReport() makes no figures up", () => {
  assert.deepEqual(readReport("Error: no server"), {
    answersPerSec: NaN,
    lost: NaN,
    codes: {},
    latenciesSecs: [],
  });
});

const WRK = `Running 2s test @ http://10.98.0.1:8888/
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     4.09ms    2.90ms  20.01ms   84.56%
    Req/Sec     3.82k   737.11     5.53k    75.00%
  Latency Distribution
     50%  740.00us
     99%    1.61ms
  7618 requests in 2.01s, 1.41MB read
`;

Deno.test("readWrk() finds rate and latency, and does not mind connections closed after an answer", () => {
  const closing = "  Socket errors: connect 0, read 7618, write 0, timeout 0\n";
  const text = `${WRK}${closing}Requests/sec:   3788.82\n`;
  assert.deepEqual(readWrk(text), { requestsPerSec: 3788.82, p99Ms: 1.61 });
  assert.equal(readWrk(text.replace("1.61ms", "500.00us")).p99Ms, 0.5);
});

Deno.test("readWrk() takes refusals and dead connections for failures", () => {
  const refused = `${WRK}  Non-2xx or 3xx responses: 7618\nRequests/sec:   3788.82\n`;
  assert.throws(() => readWrk(refused), /responses: 7618/);
  for (
    const counts of [
      "connect 1, read 0, write 0, timeout 0",
      "connect 0, read 0, write 0, timeout 3",
    ]
  ) {
    const dead = `${WRK}  Socket errors: ${counts}\nRequests/sec:   3788.82\n`;
    assert.throws(() => readWrk(dead), /socket errors/);
  }
  assert.deepEqual(readWrk("unable to connect"), { requestsPerSec: NaN, p99Ms: NaN });
});
