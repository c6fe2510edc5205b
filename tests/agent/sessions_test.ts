import { equal, notEqual, throws } from "node:assert/strict";
import fc from "fast-check";
import type { Agent } from "../../lib/agents.ts";
import { Sessions } from "../../lib/agent/sessions.ts";
import { SlidingWindow } from "../../lib/agent/window.ts";
import { OutcallError } from "../../lib/errors.ts";

const RATES = {
  permissions: { count: 3, windowSecs: 10 },
  submissions: { count: 1, windowSecs: 60 },
};

function agent(n: number): Agent {
  return {
    name: "worker",
    containerId: n.toString(16).padStart(64, "0"),
    address: "10.200.0.2",
    network: "outcall-agent-net",
  };
}

function refusedWith(code: string): (thrown: unknown) => boolean {
  return (thrown) => thrown instanceof OutcallError && thrown.code === code;
}

Deno.test("no stretch of a window's length holds more than its count (S004-FR-014)", () => {
  fc.assert(fc.property(
    fc.array(fc.integer({ min: 0, max: 4_000 }), { maxLength: 200 }),
    fc.integer({ min: 1, max: 6 }),
    fc.integer({ min: 1, max: 4 }),
    (gaps, count, windowSecs) => {
      const window = new SlidingWindow({ count, windowSecs });
      const admitted: number[] = [];
      let now = 0;
      for (const gap of gaps) {
        now += gap;
        const wait = window.admit(now);
        if (wait === null) admitted.push(now);
        else {
          // The wait is a whole number of seconds, after which it is admitted, and no longer than needed.
          equal(wait >= 1 && wait <= windowSecs, true);
          const recent = admitted.filter((time) => time > now - windowSecs * 1_000);
          equal(recent.length, count);
        }
      }
      for (const end of admitted) {
        const inside = admitted.filter((time) => time > end - windowSecs * 1_000 && time <= end);
        equal(inside.length <= count, true);
      }
    },
  ));
});

Deno.test("an agent has one session, whose token is no other agent's (ADV-AGENT-03, S004-EC-004)", () => {
  const sessions = new Sessions(RATES);
  const { token } = sessions.checkIn(agent(1));
  equal(sessions.checkIn(agent(1)).token, token);
  notEqual(sessions.checkIn(agent(2)).token, token);
  equal(sessions.authorize(agent(1), `bearer ${token}`).token, token);
  throws(() => sessions.authorize(agent(2), `Bearer ${token}`), refusedWith("session.foreign"));
});

Deno.test("what is no token of this daemon is refused (ADV-AGENT-04, S004-EC-005)", () => {
  const sessions = new Sessions(RATES);
  const { token } = sessions.checkIn(agent(1));
  for (
    const header of [
      undefined,
      "",
      token,
      `Basic ${token}`,
      `Bearer ${token.toUpperCase()}`,
      `Bearer ${token.slice(0, -1)}`,
      `Bearer ${token}0`,
      `Bearer ${token} x`,
      `Bearer tok-${"0".repeat(32)}`,
    ]
  ) throws(() => sessions.authorize(agent(1), header), refusedWith("session.invalid"), header);
});

Deno.test("sessions are bounded, and idle ones make room (ADV-AGENT-18)", () => {
  let now = 0;
  const sessions = new Sessions(RATES, () => now, 2);
  const { token } = sessions.checkIn(agent(1));
  sessions.checkIn(agent(2));
  throws(() => sessions.checkIn(agent(3)), refusedWith("session.capacity"));
  now = 60_000;
  sessions.checkIn(agent(3));
  throws(() => sessions.authorize(agent(1), `Bearer ${token}`), refusedWith("session.invalid"));
});
