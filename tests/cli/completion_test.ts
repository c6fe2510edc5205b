import { deepEqual, equal, ok } from "node:assert/strict";
import { outcall } from "./outcall.ts";

const GLOBAL = ["--version", "--socket", "--json", "--help"];

Deno.test("bash completes commands and options at every level", async () => {
  const { out: script, code } = await outcall("completion", "bash");
  equal(code, 0);
  const complete = async (...words: string[]): Promise<string[]> => {
    const bash = new Deno.Command("bash", {
      args: [
        "-c",
        `${script}
         COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _outcall; printf '%s\\n' "\${COMPREPLY[@]}"`,
        "bash",
        "outcall",
        ...words,
      ],
    });
    const { stdout, stderr } = await bash.output();
    equal(new TextDecoder().decode(stderr), "");
    return new TextDecoder().decode(stdout).split("\n").filter(Boolean);
  };
  deepEqual(await complete("bri"), ["bridge"]);
  deepEqual(await complete("bridge", ""), ["status", "up", "down", ...GLOBAL]);
  deepEqual(await complete("--socket", "/x", "rules", "re"), ["reload"]);
  deepEqual(await complete("container", "create", "--image", "x", "--me"), ["--memory"]);
  deepEqual(await complete("dns", "cache", "--"), ["--entries", ...GLOBAL]);
});

for (const shell of ["bash", "zsh", "fish"]) {
  Deno.test(`the ${shell} script knows every group of commands`, async () => {
    const { out, err, code } = await outcall("completion", shell);
    deepEqual([code, err], [0, ""]);
    for (const group of ["bridge", "dns", "proxy", "network", "container", "rules"]) {
      ok(new RegExp(`\\b${group}\\b`).test(out), group);
    }
  });
}
