/**
 * Byte strings: text with one character (U+0000–U+00FF) per byte, so that head sections can be read
 * with string functions and written back unchanged, whatever encoding their values are in.
 */
import { Buffer, isUtf8 as isValidUtf8 } from "node:buffer";

/** The byte string of `bytes`. */
export function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
}

/** The bytes of a byte string. */
export function bytesOf(text: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Buffer.from(text, "latin1"));
}

/** A byte string read as UTF-8, as rules compare it. */
export function decodeUtf8(text: string): string {
  return /^[\x20-\x7e]*$/.test(text) ? text : Buffer.from(text, "latin1").toString("utf8");
}

/** Whether `bytes` are well-formed UTF-8 (ASCII is). */
export function isUtf8(bytes: Uint8Array): boolean {
  return isValidUtf8(bytes);
}
