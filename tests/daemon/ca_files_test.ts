import { equal, throws } from "node:assert/strict";
import { checkCaFiles } from "../../lib/ca_files.ts";
import { OutcallError } from "../../lib/errors.ts";

async function inFolder(run: (certPath: string, keyPath: string) => void): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/ca.pem`, "certificate");
    await Deno.writeTextFile(`${folder}/ca.key`, "key", { mode: 0o600 });
    run(`${folder}/ca.pem`, `${folder}/ca.key`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function refusal(certPath: string, keyPath: string): string {
  let code = "";
  throws(() => checkCaFiles({ certPath, keyPath }), (thrown) => {
    code = thrown instanceof OutcallError ? thrown.code : "";
    return code !== "";
  });
  return code;
}

Deno.test("checkCaFiles() accepts a key that only its owner can read", async () => {
  await inFolder((certPath, keyPath) => checkCaFiles({ certPath, keyPath }));
});

Deno.test("checkCaFiles() refuses a key that group or others can use", async () => {
  await inFolder((certPath, keyPath) => {
    for (const mode of [0o640, 0o604, 0o644, 0o620, 0o601]) {
      Deno.chmodSync(keyPath, mode);
      equal(refusal(certPath, keyPath), "ca.exposed");
    }
  });
});

Deno.test("checkCaFiles() refuses files that are not there", async () => {
  await inFolder((certPath, keyPath) => {
    equal(refusal(`${certPath}.x`, keyPath), "ca.unreadable");
    equal(refusal(certPath, `${keyPath}.x`), "ca.unreadable");
  });
});
