/** Request heads that two parsers could read differently: each must be refused, and how. */

/** A request head with this request line and these field lines. */
export function head(requestLine: string, ...fields: string[]): string {
  return [requestLine, ...fields, "", ""].join("\r\n");
}

/** A sound GET with these fields added. */
export function get(...fields: string[]): string {
  return head("GET http://a.example/x HTTP/1.1", "Host: a.example", ...fields);
}

/** What it is, its bytes, and status and problem of the refusal. */
export const REFUSED_HEADS: readonly (readonly [string, string, number, RegExp])[] = [
  [
    "ADV-HTTP-03 both framings",
    get("Content-Length: 1", "Transfer-Encoding: chunked"),
    400,
    /both/,
  ],
  [
    "ADV-HTTP-04 equal lengths",
    get("Content-Length: 1", "Content-Length: 1"),
    400,
    /more than one/,
  ],
  [
    "ADV-HTTP-04 lengths differ",
    get("Content-Length: 1", "Content-Length: 2"),
    400,
    /more than one/,
  ],
  ["ADV-HTTP-04 list of lengths", get("Content-Length: 1, 1"), 400, /malformed Content-Length/],
  ["signed length", get("Content-Length: +1"), 400, /malformed Content-Length/],
  ["negative length", get("Content-Length: -1"), 400, /malformed Content-Length/],
  ["octal-looking length", get("Content-Length: 010"), 400, /malformed Content-Length/],
  ["hexadecimal length", get("Content-Length: 0x10"), 400, /malformed Content-Length/],
  ["empty length", get("Content-Length:"), 400, /malformed Content-Length/],
  ["two codings", get("Transfer-Encoding: gzip, chunked"), 400, /other than chunked/],
  ["coding spelt oddly", get("Transfer-Encoding: xchunked"), 400, /other than chunked/],
  ["coding with tab", get("Transfer-Encoding: chunked\x0b"), 400, /malformed header field/],
  [
    "two coding fields",
    get("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    400,
    /other/,
  ],
  ["identity", get("Transfer-Encoding: identity"), 400, /other than chunked/],
  ["length with underscore", get("Content_Length: 5"), 400, /taken for framing/],
  ["coding with underscore", get("Transfer_Encoding: chunked"), 400, /taken for framing/],
  ["ADV-HTTP-05", get("Host: a.example"), 400, /more than one Host/],
  ["ADV-HTTP-06", head("GET http://a.example/ HTTP/1.1"), 400, /missing/],
  ["ADV-HTTP-07 host", head("GET http://a.example/ HTTP/1.1", "Host: b.example"), 400, /differs/],
  [
    "ADV-HTTP-07 port",
    head("GET http://a.example/ HTTP/1.1", "Host: a.example:81"),
    400,
    /differs/,
  ],
  ["ADV-HTTP-07 empty", head("GET http://a.example/ HTTP/1.1", "Host:"), 400, /malformed Host/],
  ["ADV-HTTP-08", get("Content-Length: 1073741825"), 413, /longer/],
  ["endless length", get("Content-Length: 99999999999999999999999"), 413, /longer/],
  [
    "ADV-HTTP-10",
    head("GET http://u:p@a.example/ HTTP/1.1", "Host: a.example"),
    400,
    /authority/,
  ],
  ["ADV-HTTP-11", head("GET http://a.example/#f HTTP/1.1", "Host: a.example"), 400, /fragment/],
  ["ADV-HTTP-12", head("GET https://a.example/ HTTP/1.1", "Host: a.example"), 400, /CONNECT/],
  ["ADV-HTTP-13", head("GET /x HTTP/1.1", "Host: a.example"), 400, /absolute/],
  ["asterisk form", head("OPTIONS * HTTP/1.1", "Host: a.example"), 400, /absolute/],
  ["other scheme", head("GET ftp://a.example/ HTTP/1.1", "Host: a.example"), 400, /absolute/],
  ["ADV-HTTP-14", `\r\n${get()}`, 400, /request line/],
  ["ADV-HTTP-15 space before colon", get("X : y"), 400, /malformed header field/],
  ["ADV-HTTP-15 folded line", get("X: y", " z"), 400, /malformed header field/],
  ["ADV-HTTP-15 bare CR", get("X: y\rZ: w"), 400, /malformed header field/],
  ["no colon", get("nonsense"), 400, /malformed header field/],
  ["empty name", get(": y"), 400, /malformed header field/],
  ["ADV-HTTP-16 NUL", get("X: \0"), 400, /malformed header field/],
  ["ADV-HTTP-16 DEL", get("X: \x7f"), 400, /malformed header field/],
  ["ADV-HTTP-16 name", get("X\xc3\xa9: y"), 400, /malformed header field/],
  ["ADV-HTTP-16 bad UTF-8", get("X: \xff"), 400, /UTF-8/],
  ["ADV-HTTP-16 overlong UTF-8", get("X: \xc0\xaf"), 400, /UTF-8/],
  ["ADV-HTTP-20", get("Expect: 200-ok"), 417, /100-continue/],
  [
    "ADV-HTTP-21",
    head("GE T http://a.example/ HTTP/1.1", "Host: a.example"),
    400,
    /request line/,
  ],
  ["two spaces", head("GET  http://a.example/ HTTP/1.1", "Host: a.example"), 400, /request line/],
  ["tab", head("GET\thttp://a.example/ HTTP/1.1", "Host: a.example"), 400, /request line/],
  [
    "control in target",
    head("GET http://a.example/\x01 HTTP/1.1", "Host: a.example"),
    400,
    /line/,
  ],
  [
    "raw Unicode target",
    head("GET http://a.example/\xc3\xa9 HTTP/1.1", "Host: a.example"),
    400,
    /line/,
  ],
  ["broken escape", head("GET http://a.example/%zz HTTP/1.1", "Host: a.example"), 400, /percent/],
  [
    "doubled escape",
    head("GET http://a.example/%%32e HTTP/1.1", "Host: a.example"),
    400,
    /percent/,
  ],
  [
    "backslash authority",
    head("GET http://a.example\\@b/ HTTP/1.1", "Host: a.example"),
    400,
    /author/,
  ],
  ["no authority", head("GET http:///x HTTP/1.1", "Host: a.example"), 400, /authority/],
  ["empty port", head("GET http://a.example:/ HTTP/1.1", "Host: a.example"), 400, /authority/],
  ["port 0", head("GET http://a.example:0/ HTTP/1.1", "Host: a.example:0"), 400, /authority/],
  ["HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\n", 505, /version/],
  ["HTTP/0.9", "GET http://a.example/\r\n\r\n", 400, /request line/],
  [
    "chunked in HTTP/1.0",
    head("POST http://a/ HTTP/1.0", "Transfer-Encoding: chunked"),
    400,
    /1\.0/,
  ],
  ["ADV-TLS-02", head("CONNECT a.example:443 HTTP/1.1", "Host: b.example:443"), 400, /differs/],
  [
    "ADV-TLS-02 port",
    head("CONNECT a.example:443 HTTP/1.1", "Host: a.example:444"),
    400,
    /differs/,
  ],
  ["ADV-TLS-03", head("CONNECT a:443 HTTP/1.1", "Host: a:443", "Content-Length: 0"), 400, /body/],
  [
    "ADV-TLS-03 chunked",
    head("CONNECT a:443 HTTP/1.1", "Host: a:443", "Transfer-Encoding: chunked"),
    400,
    /body/,
  ],
  [
    "ADV-TLS-04 zero",
    head("CONNECT a.example:0 HTTP/1.1", "Host: a.example"),
    400,
    /CONNECT target/,
  ],
  [
    "ADV-TLS-04 65536",
    head("CONNECT a.example:65536 HTTP/1.1", "Host: a.example"),
    400,
    /CONNECT target/,
  ],
  [
    "ADV-TLS-04 text",
    head("CONNECT a.example:https HTTP/1.1", "Host: a.example"),
    400,
    /CONNECT target/,
  ],
  [
    "ADV-TLS-04 missing",
    head("CONNECT a.example HTTP/1.1", "Host: a.example"),
    400,
    /needs a port/,
  ],
  [
    "CONNECT with a URI",
    head("CONNECT http://a.example/ HTTP/1.1", "Host: a.example"),
    400,
    /target/,
  ],
];
