/**
 * Decodes the chunked transfer coding (RFC 9112 §7.1), a piece at a time, strictly. Extensions and
 * trailer fields are checked and dropped: what goes on is framed again by us.
 */
import { textOf } from "./bytes.ts";
import { parseFieldLine } from "./fields.ts";

/** A size line with its extensions, or one trailer field, may be this long. */
const MAX_LINE_BYTES = 4096;
/** All trailer fields together. */
const MAX_TRAILER_BYTES = 8192;

/** Size in hexadecimal, at most 4 GiB, then extensions without control characters. */
const SIZE_LINE = /^([0-9A-Fa-f]{1,8})(?:;[\t\x20-\x7e\x80-\xff]*)?$/;

type State = "size" | "data" | "data_end" | "trailer" | "done" | "malformed";

/** What one step of decoding gave. */
export interface DecodedPiece {
  /** Bytes of the body: a part of the input, empty while only framing was read. */
  readonly data: Uint8Array<ArrayBuffer>;
  /** Input bytes taken; the rest comes again. Zero: more input is needed, or the body has ended. */
  readonly usedBytes: number;
}

/** The decoder of one body. */
export class ChunkedDecoder {
  #state: State = "size";
  #chunkLeftBytes = 0;
  #trailerBytes = 0;

  /** The last chunk and the trailer section were read. */
  get done(): boolean {
    return this.#state === "done";
  }

  /** The input is no chunked body; nothing more is decoded. */
  get malformed(): boolean {
    return this.#state === "malformed";
  }

  /** Takes one chunk's data or one line from the front of `input`. */
  decode(input: Uint8Array<ArrayBuffer>): DecodedPiece {
    if (this.#state === "data") return this.#data(input);
    if (this.#state === "done" || this.#state === "malformed") return NOTHING;
    const end = input.indexOf(0x0a);
    const lineBytes = end < 0 ? input.length : end + 1;
    if (lineBytes > MAX_LINE_BYTES || (end >= 0 && input[end - 1] !== 0x0d)) return this.#fail();
    if (end < 0) return NOTHING;
    this.#line(textOf(input.subarray(0, end - 1)));
    return { data: EMPTY, usedBytes: lineBytes };
  }

  #data(input: Uint8Array<ArrayBuffer>): DecodedPiece {
    const data = input.subarray(0, this.#chunkLeftBytes);
    this.#chunkLeftBytes -= data.length;
    if (this.#chunkLeftBytes === 0) this.#state = "data_end";
    return { data, usedBytes: data.length };
  }

  #line(line: string): void {
    if (this.#state === "size") {
      const size = SIZE_LINE.exec(line)?.[1];
      if (size === undefined) return void this.#fail();
      this.#chunkLeftBytes = Number.parseInt(size, 16);
      this.#state = this.#chunkLeftBytes === 0 ? "trailer" : "data";
    } else if (this.#state === "data_end") {
      this.#state = line === "" ? "size" : "malformed";
    } else if (line === "") {
      this.#state = "done";
    } else {
      this.#trailerBytes += line.length;
      const sound = this.#trailerBytes <= MAX_TRAILER_BYTES && parseFieldLine(line) !== null;
      if (!sound) this.#fail();
    }
  }

  #fail(): DecodedPiece {
    this.#state = "malformed";
    return NOTHING;
  }
}

const EMPTY = new Uint8Array(0);
const NOTHING: DecodedPiece = { data: EMPTY, usedBytes: 0 };
