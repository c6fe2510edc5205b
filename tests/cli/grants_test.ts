import { deepEqual, equal, match } from "node:assert/strict";
import { withHostApi } from "../api/running.ts";
import { outcall } from "./outcall.ts";

Deno.test("grants: what is open is listed, opened, revoked and flushed (S009-US-003, D12)", () =>
  withHostApi(async ({ path, calls }) => {
    const run = (args: string): ReturnType<typeof outcall> =>
      outcall("--socket", path, ...args.split(" "));
    deepEqual(await run("grants list"), {
      code: 0,
      out: `ID       AGENT            DESTINATION                  EXPIRES IN BY
4f0c2a91 my-agent         93.184.216.34 port 443/tcp   900 s      operator
`,
      err: "",
    });
    deepEqual(await run("grants allow --agent my-agent --to 93.184.216.34 --for 15m"), {
      code: 0,
      out: "Grant 4f0c2a91: my-agent may reach 93.184.216.34 port 443/tcp for 900 s.\n",
      err: "",
    });
    equal((await run("grants allow --agent 10.200.0.2 --to 10.1.0.0/16:53 --udp")).code, 0);
    deepEqual(await run("grants allow --agent my-agent --to db.example.com:443 --persistent"), {
      code: 0,
      out: `\
Grant 4f0c2a91: my-agent may reach 93.184.216.34 port 443/tcp (db.example.com) until it is revoked.
Grant 4f0c2a92: my-agent may reach 93.184.216.35 port 443/tcp (db.example.com) until it is revoked.
`,
      err: "",
    });
    equal((await run("grants revoke 4f0c2a91")).out, "Grant 4f0c2a91 is revoked.\n");
    equal((await run("grants flush")).out, "Grants flushed (3 revoked).\n");
    deepEqual(calls, [
      ["grants.allow", {
        container: "my-agent",
        destination: "93.184.216.34",
        port: 443,
        protocol: "tcp",
        persistent: false,
        expires_in_secs: 900,
      }],
      ["grants.allow", {
        src_ip: "10.200.0.2",
        destination: "10.1.0.0/16",
        port: 53,
        protocol: "udp",
        persistent: false,
      }],
      ["grants.allow", {
        container: "my-agent",
        destination: "db.example.com",
        port: 443,
        protocol: "tcp",
        persistent: true,
      }],
      ["grants.revoke", "4f0c2a91"],
    ]);
  }));

Deno.test("grants: a time or destination that is none is a usage error", () =>
  withHostApi(async ({ path, calls }) => {
    for (
      const args of [
        "--to a!b",
        "--to 1.1.1.1:0",
        "--to a.example:65536",
        "--to 1.1.1.1 --for 5",
        "--to 1.1.1.1 --for 0m",
      ]
    ) {
      const outcome = await outcall(
        ...["--socket", path, "grants", "allow", "--agent", "a", ...args.split(" ")],
      );
      equal(outcome.code, 2);
      match(outcome.err, /It must be/);
    }
    deepEqual(calls, []);
  }));
