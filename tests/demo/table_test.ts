import assert from "node:assert/strict";
import fc from "fast-check";
import { renderHead, renderRow, wrap } from "./table.ts";

Deno.test("wrap() breaks between words, and inside a word only when it must", () => {
  assert.deepEqual(wrap("nc -zv 1.1.1.1 443", 9), ["nc -zv", "1.1.1.1", "443"]);
  assert.deepEqual(wrap("see https://example.com/long", 10), [
    "see",
    "https://ex",
    "ample.com/",
    "long",
  ]);
  assert.deepEqual(wrap("", 5), [""]);
});

Deno.test("wrap() loses no character and keeps to the width", () => {
  const word = fc.stringMatching(/^[!-~]{1,30}$/);
  fc.assert(fc.property(fc.array(word), fc.integer({ min: 1, max: 40 }), (words, width) => {
    const lines = wrap(words.join(" "), width);
    assert.ok(lines.every((line) => line.length <= width));
    assert.equal(lines.join("").replaceAll(" ", ""), words.join(""));
  }));
});

Deno.test("renderRow() makes a row as tall as its longest cell", () => {
  const columns = [{ title: "A", width: 3 }, { title: "B", width: 5 }];
  assert.equal(renderHead(columns), "A    B\n───  ─────");
  assert.equal(renderRow(columns, ["x", "one two"]), "x    one\n     two");
});
