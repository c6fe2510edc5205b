/** First bytes in a tunnel that must not pass, and ClientHellos that must, for tests. */
import { bytesOf } from "../../lib/proxy/bytes.ts";
import {
  clientHello,
  handshake,
  helloMessage,
  join,
  records,
  serverNames,
  vector,
} from "./hello.ts";

/** What it is, its bytes, and the reason that its record gives. */
export type RefusedHello = readonly [
  name: string,
  bytes: Uint8Array,
  reason: "malformed" | "not_tls" | "sni_mismatch" | "sni_missing",
];

/** What a tunnel to `host` must not begin with; `other` is another host that rules allow. */
export function refusedHellos(host: string, other: string): readonly RefusedHello[] {
  const hello = clientHello({ names: [host] });
  const message = helloMessage({ names: [host] });
  const named = (name: string | Uint8Array): Uint8Array => clientHello({ names: [name] });
  const withNames = (content: Uint8Array): Uint8Array =>
    clientHello({ extensions: [[0, content]] });
  return [
    ["ADV-TLS-06 another, blocked name", named("evil.example"), "sni_mismatch"],
    ["ADV-TLS-07 another, allowed name", named(other), "sni_mismatch"],
    ["a name below", named(`x.${host}`), "sni_mismatch"],
    ["a name that begins alike", named(`${host}.evil.example`), "sni_mismatch"],
    ["ADV-TLS-08 another name in two records", splitHello(other), "sni_mismatch"],
    ["ADV-TLS-09 no name", clientHello(), "sni_missing"],
    ["ADV-TLS-09 ECH outer name", clientHello({ names: [other], ech: true }), "sni_mismatch"],
    ["ADV-TLS-09 ECH without a name", clientHello({ ech: true }), "sni_missing"],
    ["ADV-TLS-10 two names", clientHello({ names: [host, other] }), "malformed"],
    [
      "ADV-TLS-10 two name extensions",
      clientHello({ names: [host], extensions: [[0, serverNames([other])]] }),
      "malformed",
    ],
    ["ADV-TLS-10 empty list", withNames(vector(2, new Uint8Array())), "malformed"],
    ["ADV-TLS-10 empty extension", withNames(new Uint8Array()), "malformed"],
    ["ADV-TLS-10 empty name", named(""), "malformed"],
    ["ADV-TLS-10 dot", named("."), "malformed"],
    ["ADV-TLS-10 NUL", named(`${host}\0`), "malformed"],
    ["ADV-TLS-10 NUL and another", named(`${host}\0.${other}`), "malformed"],
    ["ADV-TLS-10 space", named(`${host} `), "malformed"],
    ["ADV-TLS-10 line end", named(`${host}\r\n`), "malformed"],
    ["ADV-TLS-10 not ASCII", named(`b\u00fccher.${host}`), "malformed"],
    ["ADV-TLS-10 wildcard", named("*"), "malformed"],
    ["ADV-TLS-10 IPv4 address", named("93.184.216.34"), "malformed"],
    ["ADV-TLS-10 IPv4 as a number", named("1572395042"), "malformed"],
    ["ADV-TLS-10 IPv6 address", named("2606:2800:220:1::1"), "malformed"],
    ["ADV-TLS-10 long name", named(`${"a.".repeat(200)}${host}`), "malformed"],
    ["ADV-TLS-10 port", named(`${host}:443`), "malformed"],
    [
      "ADV-TLS-10 other type",
      withNames(vector(2, join([1], vector(2, bytesOf(host))))),
      "malformed",
    ],
    ["ADV-TLS-10 bytes behind the list", withNames(join(serverNames([host]), [0])), "malformed"],
    [
      "ADV-TLS-10 long list",
      withNames(join([0, 99], serverNames([host]).subarray(2))),
      "malformed",
    ],
    ["ADV-TLS-11 SSH", bytesOf("SSH-2.0-OpenSSH_9.2\r\n"), "not_tls"],
    ["ADV-TLS-11 plain HTTP", bytesOf(`GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`), "not_tls"],
    ["ADV-TLS-11 HTTP/2 preface", bytesOf("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "not_tls"],
    ["ADV-TLS-11 another CONNECT", bytesOf(`CONNECT ${other}:443 HTTP/1.1\r\n\r\n`), "not_tls"],
    ["ADV-TLS-11 SSLv2 hello", bytesOf("\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10"), "not_tls"],
    ["ADV-TLS-11 alert first", join([21, 3, 1, 0, 2, 1, 0], hello), "not_tls"],
    ["ADV-TLS-11 change of cipher first", join([20, 3, 3, 0, 1, 1], hello), "not_tls"],
    ["ADV-TLS-11 early data first", join([23, 3, 3, 0, 1, 1], hello), "not_tls"],
    ["ADV-TLS-11 ServerHello", records(join([2], message.subarray(1))), "not_tls"],
    ["ADV-TLS-11 version 4 record", join([22, 4, 1], hello.subarray(3)), "not_tls"],
    ["SSL 3.0", records(join(message.subarray(0, 4), [3, 0], message.subarray(6))), "malformed"],
    ["ADV-TLS-12 too long", paddedHello(host, 17_000), "malformed"],
    ["ADV-TLS-12 announced too long", bytesOf("\x16\x03\x01\x40\x00\x01\xff\xff\xff"), "malformed"],
    ["ADV-TLS-12 record too long", bytesOf("\x16\x03\x01\x40\x01\x01"), "malformed"],
    ["ADV-TLS-12 empty record", join([22, 3, 1, 0, 0], hello), "malformed"],
    ["ADV-TLS-12 one byte a record", records(message, 1), "malformed"],
    [
      "another hello in its record",
      records(join(message, helloMessage({ names: [other] }))),
      "malformed",
    ],
    ["a hello that ends in the middle", records(handshake(message.subarray(4, 40))), "malformed"],
    [
      "bytes behind the extensions",
      records(handshake(join(message.subarray(4), [0]))),
      "malformed",
    ],
  ];
}

/** Hellos that name `host` as real clients may: each must reach the server as it was sent. */
export function soundHellos(host: string): readonly (readonly [name: string, bytes: Uint8Array])[] {
  const hello = clientHello({ names: [host], alpn: ["h2", "http/1.1"] });
  return [
    ["as most send it", hello],
    ["upper case and a trailing dot", clientHello({ names: [`${host.toUpperCase()}.`] })],
    ["in two records", splitHello(host)],
    ["TLS 1.0 by its record", join([22, 3, 0], hello.subarray(3))],
    ["GREASE", clientHello({ names: [host], extensions: [[0x0a0a, new Uint8Array([0])]] })],
    ["ECH with the host as outer name", clientHello({ names: [host], ech: true })],
    ["early data behind it", join(hello, [20, 3, 3, 0, 1, 1, 23, 3, 3, 0, 2, 1, 2])],
    ["nearly 16 KiB", paddedHello(host, 16_000)],
  ];
}

function splitHello(host: string): Uint8Array {
  return records(helloMessage({ names: [host] }), 60);
}

function paddedHello(host: string, paddingBytes: number): Uint8Array {
  return records(helloMessage({ names: [host], paddingBytes }));
}
