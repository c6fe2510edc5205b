/** How far a pull is: Docker's lines added up, and how that looks. */
import assert from "node:assert/strict";
import * as fc from "fast-check";
import { PullDisplay } from "../../lib/cli/pull.ts";
import { PullTally } from "../../lib/docker/progress.ts";

/** As Docker sends them for an image of three layers, one of which is here. */
const LINES = [
  { status: "Pulling from library/python", id: "3.12" },
  { status: "Already exists", progressDetail: {}, id: "aaaaaaaaaaaa" },
  { status: "Pulling fs layer", progressDetail: {}, id: "bbbbbbbbbbbb" },
  { status: "Pulling fs layer", progressDetail: {}, id: "cccccccccccc" },
  {
    status: "Downloading",
    progressDetail: { current: 1_000_000, total: 4_000_000 },
    progress: "[==>  ] 1MB/4MB",
    id: "bbbbbbbbbbbb",
  },
  {
    status: "Downloading",
    progressDetail: { current: 500_000, total: 6_000_000 },
    id: "cccccccccccc",
  },
  { status: "Verifying Checksum", progressDetail: {}, id: "bbbbbbbbbbbb" },
  { status: "Extracting", progressDetail: { current: 10, total: 4_000_000 }, id: "bbbbbbbbbbbb" },
  { status: "Pull complete", progressDetail: {}, id: "bbbbbbbbbbbb" },
  { status: "Download complete", progressDetail: {}, id: "cccccccccccc" },
  { status: "Pull complete", progressDetail: {}, id: "cccccccccccc" },
  { status: "Digest: sha256:0" },
];

Deno.test("PullTally adds up what Docker tells layer by layer", () => {
  const tally = new PullTally();
  assert.deepEqual(
    LINES.map((line) => {
      const { layers, layers_done, bytes, bytes_total } = tally.take(line);
      return `${layers_done}/${layers} ${bytes / 1e6}/${bytes_total / 1e6}`;
    }),
    [
      ...["0/0 0/0", "1/1 0/0", "1/2 0/0", "1/3 0/0", "1/3 1/4", "1/3 1.5/10", "1/3 4.5/10"],
      ...["1/3 4.5/10", "2/3 4.5/10", "2/3 10/10", "3/3 10/10", "3/3 10/10"],
    ],
  );
  assert.equal(tally.take(LINES[4]).text, "bbbbbbbbbbbb: Downloading [==>  ] 1MB/4MB");
});

Deno.test("PullTally takes any line, and never more bytes than there are", () => {
  fc.assert(fc.property(
    fc.array(fc.oneof(
      fc.anything(),
      fc.record({
        status: fc.constantFrom("Downloading", "Extracting", "Pull complete", "x"),
        id: fc.constantFrom("a", "b"),
        progressDetail: fc.record({ current: fc.integer(), total: fc.integer() }),
      }),
    )),
    (lines) => {
      const tally = new PullTally();
      for (const line of lines) {
        const { bytes, bytes_total, layers, layers_done } = tally.take(line);
        assert.ok(bytes >= 0 && bytes <= bytes_total && layers_done <= layers);
      }
    },
  ));
});

/** Everything that is written for {@linkcode LINES}. */
function shown(columns: number | null): string[] {
  const written: string[] = [];
  const tally = new PullTally();
  const display = new PullDisplay("python:3.12", { write: (text) => written.push(text), columns });
  for (const line of LINES) display.show(tally.take(line));
  display.end();
  return written;
}

Deno.test("a terminal shows one line, drawn anew and taken away at the end", () => {
  const written = shown(100);
  assert.ok(written.every((text) => text.startsWith("\r\x1b[K") && !text.includes("\n")));
  assert.ok(written.includes(
    "\r\x1b[Kpython:3.12  [#########-----------]  45%  4.5/10.0 MB  1/3 layers",
  ));
  assert.equal(written.at(-1), "\r\x1b[K");
  assert.ok(shown(20).every((text) => text.length < "\r\x1b[K".length + 20));
});

Deno.test("a log gets a line for each quarter, at most", () => {
  assert.deepEqual(shown(null), [
    "pulling python:3.12: 25% of 4.0 MB, 1 of 3 layers complete\n",
    "pulling python:3.12: 100% of 10.0 MB, 2 of 3 layers complete\n",
  ]);
});
