/** A program whose one step stops only when nobody wants to wait for it any more. */
import { runUntilSignal, type Step } from "../../lib/lifecycle.ts";

const STEP: Step = {
  target: "host_api",
  start: () => Promise.resolve(""),
  stop: (atOnce) => {
    console.log("stopping");
    return new Promise((resolve) => atOnce.addEventListener("abort", () => resolve()));
  },
};

const ended = runUntilSignal(() => [STEP]);
const alive = setInterval(() => {}, 1_000_000); // nothing else keeps it from ending by itself
console.log("started");
const code = await ended;
clearInterval(alive);
Deno.exit(code);
