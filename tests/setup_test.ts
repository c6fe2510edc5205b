import assert from "node:assert/strict";
import { Machine } from "./lab/machine.ts";
import { denoCommand } from "./lab/product.ts";
import { labTest } from "./lab/requirements.ts";

/** A program that sets up for the demo and prints what is missing. */
const SET_UP = `
  import { setUp } from ${JSON.stringify(new URL("./setup.ts", import.meta.url))};
  console.log(await setUp("demo"));
`;
const TOOLS = ["unshare", "nsenter", "mount"];

labTest("the demo refuses to run without root, and says what to do", {
  tools: TOOLS,
}, async () => {
  const { code, stdout, stderr } = await new Deno.Command("unshare", {
    args: [
      ...["--user", "--map-user=65534", "--map-group=65534"],
      ...denoCommand(new URL("./demo.ts", import.meta.url)),
    ],
  }).output();
  const decoder = new TextDecoder();
  assert.equal(code, 1);
  assert.equal(decoder.decode(stdout), "");
  assert.match(decoder.decode(stderr), /^This needs root: .* with sudo\.\n$/);
});

labTest("set-up without apt-get names the distribution and what to install by hand", {
  tools: TOOLS,
}, async () => {
  await using machine = await Machine.start("without-apt");
  for (const program of ["apt-get", "nft"]) {
    const path = (await machine.must(["bash", "-c", `command -v ${program}`])).trim();
    await machine.must(["mount", "--bind", "/dev/null", path]);
  }
  await machine.write("/etc/os-release", 'NAME="Other"\nPRETTY_NAME="Other Linux 7"\n');
  const text = await machine.must([Deno.execPath(), "eval", "--quiet", SET_UP]);
  assert.equal(
    text,
    "Other Linux 7 has no apt-get, and these programs are missing: nft.\n" +
      "Install them by hand (on Debian they are in: nftables), then run again.\n",
  );
});

labTest(
  "set-up is silent where nothing is missing",
  { tools: [...TOOLS, "nft", "dig"] },
  async () => {
    const { stdout } = await new Deno.Command(Deno.execPath(), {
      args: ["eval", "--quiet", SET_UP],
    })
      .output();
    assert.equal(new TextDecoder().decode(stdout), "null\n");
  },
);
