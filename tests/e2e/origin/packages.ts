/** Packages as registries serve them, made on the spot: an npm tarball and a Python wheel. */

const BLOCK_BYTES = 512;

/** A gzipped tar archive (POSIX.1-1988, "ustar") of these files. */
export async function tarball(files: Readonly<Record<string, string>>): Promise<Uint8Array> {
  const blocks = Object.entries(files).flatMap(([path, text]) => tarEntry(path, text));
  // Two empty blocks end an archive.
  const archive = new Blob([...blocks, new Uint8Array(2 * BLOCK_BYTES)]);
  return await bytesOf(archive.stream().pipeThrough(new CompressionStream("gzip")));
}

function tarEntry(path: string, text: string): Uint8Array<ArrayBuffer>[] {
  const content = new TextEncoder().encode(text);
  const header = new Uint8Array(BLOCK_BYTES);
  const put = (at: number, value: string): void => {
    header.set(new TextEncoder().encode(value), at);
  };
  const octal = (value: number, digits: number): string => value.toString(8).padStart(digits, "0");
  put(0, path);
  put(100, `${octal(0o644, 7)}\0${octal(0, 7)}\0${octal(0, 7)}\0`); // mode, uid, gid
  put(124, `${octal(content.length, 11)}\0${octal(0, 11)}\0`); // size, time
  put(148, " ".repeat(8)); // the sum counts its own field as blanks
  put(156, "0"); // a plain file
  put(257, "ustar\x0000");
  put(148, `${octal(header.reduce((sum, byte) => sum + byte, 0), 6)}\0 `);
  const padding = new Uint8Array(-content.length & (BLOCK_BYTES - 1));
  return [header, content, padding];
}

/** The wheel of a package with one module: a zip archive, its entries stored as they are. */
export function wheel(name: string, version: string): Uint8Array {
  const info = `${name}-${version}.dist-info`;
  const files = {
    [`${name}.py`]: `VERSION = "${version}"\n`,
    [`${info}/METADATA`]: `Metadata-Version: 2.1\nName: ${name}\nVersion: ${version}\n`,
    [`${info}/WHEEL`]:
      "Wheel-Version: 1.0\nGenerator: lab\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    [`${info}/RECORD`]: `${name}.py,,\n${info}/METADATA,,\n${info}/WHEEL,,\n${info}/RECORD,,\n`,
  };
  return zip(files);
}

/** A zip archive (APPNOTE.TXT 4.3) without compression. */
function zip(files: Readonly<Record<string, string>>): Uint8Array {
  const parts: Uint8Array[] = [];
  const directory: Uint8Array[] = [];
  let offset = 0;
  for (const [path, text] of Object.entries(files)) {
    const name = new TextEncoder().encode(path);
    const content = new TextEncoder().encode(text);
    const common = (): Uint8Array => {
      const view = new DataView(new ArrayBuffer(26));
      view.setUint16(0, 20, true); // version needed
      view.setUint16(8, 0x21, true); // the earliest date there is
      view.setUint32(10, crc32(content), true);
      view.setUint32(14, content.length, true);
      view.setUint32(18, content.length, true);
      view.setUint16(22, name.length, true);
      return new Uint8Array(view.buffer);
    };
    const local = join(signature(0x04034b50), common(), name, content);
    const attributes = new Uint8Array(14);
    new DataView(attributes.buffer).setUint32(10, offset, true);
    directory.push(
      join(signature(0x02014b50), new Uint8Array([20, 0]), common(), attributes, name),
    );
    parts.push(local);
    offset += local.length;
  }
  const entries = join(...directory);
  const end = new DataView(new ArrayBuffer(18));
  end.setUint16(4, directory.length, true);
  end.setUint16(6, directory.length, true);
  end.setUint32(8, entries.length, true);
  end.setUint32(12, offset, true);
  return join(...parts, entries, signature(0x06054b50), new Uint8Array(end.buffer));
}

/** The files of an apt repository without signature, with the one package `wheelhouse` in it. */
export async function aptRepository(): Promise<ReadonlyMap<string, string>> {
  const packages = [
    "Package: wheelhouse",
    "Version: 1.0",
    "Architecture: all",
    "Maintainer: lab <lab@localhost>",
    "Filename: ./wheelhouse.deb",
    "Size: 0",
    `SHA256: ${"0".repeat(64)}`,
    "Description: a package",
    "",
  ].join("\n");
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(packages));
  const hash = [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0"));
  const release = `Date: ${new Date().toUTCString()}\nSHA256:\n ${
    hash.join("")
  } ${packages.length} Packages\n`;
  return new Map([["Release", release], ["Packages", packages]]);
}

function signature(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}

/** CRC-32 as zip has it (ISO 3309). */
function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

function join(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

async function bytesOf(stream: ReadableStream<Uint8Array>): Promise<Uint8Array> {
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
