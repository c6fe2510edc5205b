/**
 * The gallery of broken rule files: each `.case` file is a rule file, a line of `=`, and exactly what an
 * operator reads. `OUTCALL_UPDATE_GALLERY=1` writes the messages anew; then read them as an operator would.
 */
import assert from "node:assert/strict";
import { compilePolicy } from "../../lib/rules/compile.ts";
import { formatDiagnostic } from "../../lib/rules/diagnostic.ts";

const GALLERY = new URL("./gallery/", import.meta.url);
const SEPARATOR = "=====\n";

function messages(text: string): string {
  const result = compilePolicy([{ path: "agent.yaml", text }], { generation: 1 });
  const errors = result.ok ? [] : result.errors;
  return [...errors, ...result.warnings].map((each) => `${formatDiagnostic(each)}\n`).join("");
}

const names = [...Deno.readDirSync(GALLERY)].map(({ name }) => name).sort();

Deno.test("the gallery holds at least 60 broken files", () => {
  assert.ok(names.length >= 60);
});

for (const name of names) {
  Deno.test(`a broken rule file is explained: ${name.replace(".case", "")}`, () => {
    const file = new URL(name, GALLERY);
    const [text = "", expected] = Deno.readTextFileSync(file).split(SEPARATOR);
    const found = messages(text);
    if (Deno.env.get("OUTCALL_UPDATE_GALLERY") === "1") {
      Deno.writeTextFileSync(file, text + SEPARATOR + found);
      return;
    }
    assert.notEqual(found, "", "nothing was found wrong");
    assert.equal(found, expected);
  });
}
