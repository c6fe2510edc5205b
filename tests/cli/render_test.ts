import { deepEqual, equal, ok } from "node:assert/strict";
import fc from "fast-check";
import { labels, table } from "../../lib/cli/render.ts";
import { memorySize } from "../../lib/cli/values.ts";
import { wholeNumber } from "../../lib/options.ts";
import { printable } from "../../lib/printable.ts";

Deno.test("printable() leaves nothing that steers a terminal, and readable text alone", () => {
  fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => {
    const shown = printable(text);
    ok(!/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u.test(shown));
    equal(printable(shown), shown);
  }));
  equal(printable("Grüße, 世界 🙂"), "Grüße, 世界 🙂");
  equal(printable("a\tb\x1b[0m\x7f\u202e\ud800"), "a\\u0009b\\u001b[0m\\u007f\\u202e\\ud800");
});

Deno.test("printable() keeps the meaning of JSON text", () => {
  fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => {
    equal(JSON.parse(printable(JSON.stringify(text))), text);
  }));
});

Deno.test("labels() starts every value in the same column", () => {
  deepEqual(labels(8, [["A", "x"], ["Long", 5]]), ["A:      x", "Long:   5"]);
});

Deno.test("table() keeps columns straight whatever the cells hold", () => {
  const columns = [{ header: "A", width: 3 }, { header: "B", width: 2 }, { header: "C", width: 0 }];
  // No spaces inside cells, so that the second column can be found again.
  const cell = fc.stringMatching(/^[!-~\n]{1,12}$/);
  fc.assert(fc.property(fc.array(fc.tuple(cell, cell, cell), { maxLength: 8 }), (rows) => {
    const lines = table(columns, rows);
    equal(lines.length, rows.length + 1);
    const starts = lines.map((line) => / +/.exec(line)).map((gap) =>
      gap && gap.index + gap[0].length
    );
    equal(new Set(starts).size, 1);
    for (const line of lines) ok(!line.includes("\n") && line === line.trimEnd());
  }));
});

Deno.test("table() cuts lines to the terminal, and only then", () => {
  const columns = [{ header: "ID", width: 4 }, { header: "CONDITION", width: 0 }];
  const rows = [["a", "x".repeat(50)]];
  deepEqual(table(columns, rows, 12), ["ID   CONDIT…", "a    xxxxxx…"]);
  equal(table(columns, rows)[1]?.length, 55);
  equal(table(columns, rows, 55)[1], table(columns, rows)[1]);
});

Deno.test("memorySize() reads Docker's sizes and nothing else", () => {
  const sizes = ["0", "1", "512b", "2k", "256m", "256M", "1g"].map(memorySize);
  deepEqual(sizes, [0, 1, 512, 2048, 268_435_456, 268_435_456, 1_073_741_824]);
  for (const text of ["", "m", "-1m", "1.5g", "1t", "1 g", "0x10", "1e3", "99999999999g"]) {
    let refused = false;
    try {
      memorySize(text);
    } catch {
      refused = true;
    }
    ok(refused, text);
  }
});

Deno.test("wholeNumber() takes decimal digits within its range only", () => {
  const read = wholeNumber(2, 300);
  deepEqual(["2", "300", "007"].map(read), [2, 300, 7]);
  for (const text of ["1", "301", "", " 5", "5s", "+5", "1e2", "0x5", "5.0"]) {
    let refused = false;
    try {
      read(text);
    } catch {
      refused = true;
    }
    ok(refused, text);
  }
});
