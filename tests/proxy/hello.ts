/** Builds TLS ClientHello bytes, sound ones and broken ones, for tests. */

/** What to put into a hello. */
export interface HelloOptions {
  /** Server names; none leaves the extension out. */
  readonly names?: readonly (string | Uint8Array)[];
  readonly ech?: boolean;
  readonly alpn?: readonly string[];
  /** Further extensions, by type. */
  readonly extensions?: readonly (readonly [number, Uint8Array])[];
  /** Bytes of padding (RFC 7685), to reach a size. */
  readonly paddingBytes?: number;
}

const encoder = new TextEncoder();

/** The bytes of all parts in a row. */
export function join(...parts: readonly (Uint8Array | readonly number[])[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

/** `bytes` behind their length in `size` bytes. */
export function vector(size: 1 | 2 | 3, bytes: Uint8Array): Uint8Array {
  const length = [16, 8, 0].slice(3 - size).map((shift) => (bytes.length >> shift) & 0xff);
  return join(length, bytes);
}

function extension(type: number, content: Uint8Array): Uint8Array {
  return join([type >> 8, type & 0xff], vector(2, content));
}

/** A server_name extension's content. */
export function serverNames(names: readonly (string | Uint8Array)[]): Uint8Array {
  const entries = names.map((name) =>
    join([0], vector(2, typeof name === "string" ? encoder.encode(name) : name))
  );
  return vector(2, join(...entries));
}

/** The handshake message: type, length, body. */
export function helloMessage(options: HelloOptions = {}): Uint8Array {
  const extensions = [
    ...(options.names === undefined ? [] : [extension(0, serverNames(options.names))]),
    extension(43, vector(1, Uint8Array.from([3, 4]))), // supported_versions: TLS 1.3
    ...(options.alpn === undefined ? [] : [
      extension(
        16,
        vector(2, join(...options.alpn.map((each) => vector(1, encoder.encode(each))))),
      ),
    ]),
    ...(options.ech === true ? [extension(0xfe0d, new Uint8Array(8))] : []),
    ...(options.extensions ?? []).map(([type, content]) => extension(type, content)),
    ...(options.paddingBytes === undefined
      ? []
      : [extension(21, new Uint8Array(options.paddingBytes))]),
  ];
  return handshake(join(
    [3, 3],
    new Uint8Array(32).fill(7), // random
    vector(1, new Uint8Array(32)), // session id
    vector(2, Uint8Array.from([0x13, 0x01, 0x13, 0x02])), // cipher suites
    [1, 0], // compression
    vector(2, join(...extensions)),
  ));
}

/** A handshake message of type ClientHello around `body`. */
export function handshake(body: Uint8Array): Uint8Array {
  return join([1], vector(3, body));
}

/** TLS records that carry `message` in fragments of at most `fragmentBytes`. */
export function records(message: Uint8Array, fragmentBytes = 16_384): Uint8Array {
  const parts: Uint8Array[] = [];
  for (let at = 0; at < message.length; at += fragmentBytes) {
    parts.push(join([22, 3, 1], vector(2, message.subarray(at, at + fragmentBytes))));
  }
  return join(...parts);
}

/** A whole first flight. */
export function clientHello(options: HelloOptions = {}): Uint8Array {
  return records(helloMessage(options));
}
