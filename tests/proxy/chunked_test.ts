import assert from "node:assert/strict";
import fc from "fast-check";
import { bytesOf, textOf } from "../../lib/proxy/bytes.ts";
import { ChunkedDecoder } from "../../lib/proxy/chunked.ts";
import { fuzz } from "./fuzz.ts";

interface Outcome {
  readonly body: string;
  readonly state: "done" | "malformed" | "more";
  /** What follows the body. */
  readonly rest: string;
}

/** Decodes `input` as it would arrive in pieces of the given sizes, over and over. */
function decode(input: Uint8Array, sizes: readonly number[] = [input.length]): Outcome {
  const decoder = new ChunkedDecoder();
  let body = "";
  let waiting = new Uint8Array(0);
  let at = 0;
  for (let turn = 0;; turn++) {
    const { data, usedBytes } = decoder.decode(waiting);
    body += textOf(data);
    waiting = waiting.subarray(usedBytes);
    if (decoder.malformed) return { body, state: "malformed", rest: "" };
    if (decoder.done) {
      return { body, state: "done", rest: textOf(waiting) + textOf(input.subarray(at)) };
    }
    if (usedBytes > 0) continue;
    if (at >= input.length) return { body, state: "more", rest: textOf(waiting) };
    const size = Math.max(1, sizes[turn % sizes.length] ?? 1);
    const joined = new Uint8Array(waiting.length + Math.min(size, input.length - at));
    joined.set(waiting);
    joined.set(input.subarray(at, at + size), waiting.length);
    waiting = joined;
    at += size;
  }
}

Deno.test("a chunked body is decoded and what follows it is left alone", () => {
  assert.deepEqual(decode(bytesOf("5\r\nhello\r\n06;x=y\r\n world\r\n0\r\nT: v\r\n\r\nGET ")), {
    body: "hello world",
    state: "done",
    rest: "GET ",
  });
  assert.equal(decode(bytesOf("0\r\n\r\n")).state, "done");
  assert.equal(decode(bytesOf("0\r\n")).state, "more");
});

Deno.test("a chunked body that two decoders could read differently is malformed", () => {
  for (
    const text of [
      "\r\n0\r\n\r\n",
      "g\r\n",
      "-1\r\n",
      "+1\r\n",
      "0x1\r\n",
      " 1\r\na\r\n",
      "1 \r\na\r\n",
      "1\na\r\n",
      "1\r\na\n0\r\n\r\n",
      "1\r\nab\r\n",
      "1\r\na0\r\n\r\n",
      "1;a\0\r\n",
      "1;a\rb\r\n",
      "123456789\r\n",
      "0\r\nbad trailer\r\n\r\n",
      "0\r\nT : v\r\n\r\n",
      "0\r\n folded\r\n\r\n",
      `1;${"a".repeat(4096)}\r\n`,
      `0\r\n${`T: ${"v".repeat(4000)}\r\n`.repeat(3)}\r\n`,
    ]
  ) {
    for (const sizes of [[text.length], [1]]) {
      assert.equal(
        decode(bytesOf(text), sizes).state,
        "malformed",
        JSON.stringify(text.slice(0, 40)),
      );
    }
  }
});

Deno.test("a chunked body comes out whole however it is cut into chunks and packets (property)", () => {
  const chunks = fc.array(fc.uint8Array({ minLength: 1, maxLength: 40 }), { maxLength: 8 });
  const sizes = fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 6 });
  fc.assert(
    fc.property(chunks, sizes, (parts, cuts) => {
      const coded = parts.map((part) => `${part.length.toString(16)}\r\n${textOf(part)}\r\n`).join(
        "",
      );
      const outcome = decode(bytesOf(`${coded}0\r\n\r\nnext`), cuts);
      assert.deepEqual(outcome, { body: parts.map(textOf).join(""), state: "done", rest: "next" });
    }),
    { numRuns: 1000 },
  );
});

Deno.test("fuzz: the decoder ends, and says the same whether bytes come together or one by one", () => {
  const seeds = [
    "5\r\nhello\r\n0\r\n\r\n",
    "1;a=b\r\nx\r\nA\r\n0123456789\r\n0\r\nT: v\r\n\r\nrest",
  ].map(bytesOf);
  const spice = bytesOf("\r\n\0 ;:0Ff\x7f\xff");
  fuzz((random) => random.mutate(random.pick(seeds).slice(random.below(3)), spice), (input) => {
    const whole = decode(input);
    const single = decode(input, [1]);
    assert.equal(single.state, whole.state);
    assert.ok(whole.body.length <= input.length);
    if (whole.state === "done") assert.deepEqual(single, whole);
  });
});
