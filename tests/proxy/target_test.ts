import assert from "node:assert/strict";
import fc from "fast-check";
import { normalisePath, parseAuthority, pathWithoutParameters } from "../../lib/proxy/target.ts";

Deno.test("normalisePath() reads a path as the most forgiving server would", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["/", "/"],
    ["/a/b", "/a/b"],
    ["/a/", "/a/"],
    ["//a///b", "/a/b"],
    ["/a/./b/../c", "/a/c"],
    ["/a/..", "/"],
    ["/../../a", "/a"],
    ["/a/.", "/a/"],
    ["/%61dmin", "/admin"],
    ["/%2e%2E/a", "/a"],
    ["/public/%2e%2e%2fadmin", "/admin"],
    ["/public/..%5cadmin", "/admin"],
    ["/public\\..\\admin", "/admin"],
    ["/public/..;a=b/admin", "/admin"],
    ["/a;v=1/b", "/a;v=1/b"],
    ["/%c3%a9", "/%C3%A9"],
    ["/%252e%252e/a", "/%252e%252e/a"],
    ["/a%20b", "/a%20b"],
    ["/...", "/..."],
    ["/.hidden", "/.hidden"],
  ];
  for (const [raw, normal] of cases) assert.equal(normalisePath(raw), normal, raw);
});

Deno.test("pathWithoutParameters() reads a path as servers do that know parameters of segments", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["/a/b", "/a/b"],
    ["/;/admin", "/admin"],
    ["/;a=b;c/admin;d", "/admin"],
    ["/public;x/..;y/admin", "/admin"],
    ["/%3B/admin", "/admin"],
    ["/a%3bb%20c/admin", "/a/admin"],
    ["/;%2fadmin", "/admin"],
    ["/;\\admin", "/admin"],
    ["/a;b%5cc", "/a/c"],
  ];
  for (const [raw, read] of cases) assert.equal(pathWithoutParameters(raw), read, raw);
});

Deno.test("a normalised path is normal already and climbs nowhere (property)", () => {
  const part = fc.constantFrom(
    "/",
    ".",
    "..",
    "a",
    "%2e",
    "%2F",
    "%5c",
    "\\",
    ";",
    "%41",
    "//",
    "b=c",
  );
  fc.assert(
    fc.property(fc.array(part, { maxLength: 12 }), (parts) => {
      const normal = normalisePath(`/${parts.join("")}`);
      assert.equal(normalisePath(normal), normal);
      assert.match(normal, /^\//);
      assert.doesNotMatch(normal, /\/\/|\\|(^|\/)\.{1,2}(;[^/]*)?(\/|$)/);
    }),
    { numRuns: 2000 },
  );
});

Deno.test("a path that needs no reading is read as it is behind a detour that does (property)", () => {
  const part = fc.constantFrom(
    "/",
    ".",
    "..",
    "a",
    "B2",
    "-",
    "_",
    "~",
    "a.b",
    "/x",
    "%41",
    ";",
    "=",
  );
  fc.assert(
    fc.property(fc.array(part, { maxLength: 12 }), (parts) => {
      const path = `/${parts.join("")}`;
      for (const read of [normalisePath, pathWithoutParameters]) {
        assert.equal(read(path), read(`/%61/..${path}`), path);
      }
    }),
    { numRuns: 5000 },
  );
});

Deno.test("parseAuthority() reads each text by itself, whatever it read before", () => {
  for (const text of ["a.example", "b.example", "b.example", "u@a", "u@a", "", "a.example"]) {
    const authority = parseAuthority(text);
    assert.equal(
      authority === null ? null : String(authority.host),
      /^[ab]/.test(text) ? text : null,
    );
  }
});

Deno.test("parseAuthority() tells host and port apart, also for IPv6", () => {
  const authority = parseAuthority("[2001:DB8::1]:443");
  assert.equal(String(authority?.host), "2001:db8::1");
  assert.equal(authority?.port, 443);
  assert.equal(parseAuthority("a.example")?.port, null);
  for (
    const text of [
      "",
      ":80",
      "a:",
      "a:+1",
      "a:08",
      "a:65536",
      "u@a",
      "a b",
      "[::1",
      "[::1]x",
      "a:1:2",
    ]
  ) {
    assert.equal(parseAuthority(text), null, text);
  }
});
