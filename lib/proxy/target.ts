/**
 * The request target (RFC 9112 §3.2): which host a request is for, and how its path can be read.
 */
import { type Host, parseHost } from "../net/host.ts";

/** Host and port of an authority (RFC 3986 §3.2). */
export interface Authority {
  readonly host: Host;
  /** Null: none was written. */
  readonly port: number | null;
}

/** What was read last: a request says it twice, in its target and in Host, and the next one again. */
let latest: { readonly text: string; readonly authority: Authority | null } = {
  text: "",
  authority: null,
};

/**
 * Reads `host`, `host:port`, `[v6]` or `[v6]:port`; null when malformed, with user information, or
 * not ASCII (names outside it are sent as A-labels).
 */
export function parseAuthority(text: string): Authority | null {
  if (text !== latest.text) latest = { text, authority: readAuthority(text) };
  return latest.authority;
}

function readAuthority(text: string): Authority | null {
  if (!/^[\x21-\x7e]+$/.test(text)) return null;
  const match = /^(\[[^\]]*\]|[^:@[\]]*)(?::([0-9]+))?$/.exec(text);
  if (match === null) return null;
  const host = parseHost(match[1] ?? "");
  const port = match[2] === undefined ? null : parsePort(match[2]);
  return host === null || port === undefined ? null : { host, port };
}

/** A port from 1 to 65535 without leading zeros, or undefined. */
function parsePort(text: string): number | undefined {
  return /^[1-9][0-9]{0,4}$/.test(text) && Number(text) <= 65_535 ? Number(text) : undefined;
}

/** An absolute `http` URI, taken apart. */
export interface AbsoluteTarget {
  readonly host: Host;
  readonly port: number;
  /** As sent; `/` when it was empty. */
  readonly path: string;
  /** With its `?`; empty when there is none. */
  readonly query: string;
}

/** Why a target is refused. */
export type TargetProblem =
  | "not an absolute http:// URI; this is a proxy"
  | "https:// requests go through CONNECT"
  | "malformed authority"
  | "malformed percent-encoding in the path"
  | "fragment in the URI";

/** Reads the absolute form (RFC 9112 §3.2.2); user information and fragments are refused. */
export function parseAbsolute(target: string): AbsoluteTarget | TargetProblem {
  if (/^https:\/\//i.test(target)) return "https:// requests go through CONNECT";
  if (target.includes("#")) return "fragment in the URI";
  const match = /^http:\/\/([^/?\\]*)([^?]*)(\?.*)?$/i.exec(target);
  if (match === null) return "not an absolute http:// URI; this is a proxy";
  const authority = parseAuthority(match[1] ?? "");
  if (authority === null) return "malformed authority";
  const path = match[2] === undefined || match[2] === "" ? "/" : match[2];
  // A backslash right behind the authority: browsers read it as a slash, RFC 3986 as an error.
  if (!path.startsWith("/")) return "malformed authority";
  // Where strings end with NUL, the path would, too.
  if (/%(?:00|(?![0-9A-Fa-f]{2}))/.test(path)) return "malformed percent-encoding in the path";
  return { host: authority.host, port: authority.port ?? 80, path, query: match[3] ?? "" };
}

/** RFC 3986 §2.3: encoding these changes nothing. */
const UNRESERVED = /[A-Za-z0-9\-._~]/;

/** Segments of unreserved characters that do not begin with a dot: there is one way to read them. */
const PLAIN_PATH = /^\/(?:[A-Za-z0-9\-_~][A-Za-z0-9\-._~]*(?:\/|$))*$/;

/**
 * The path as the most forgiving server would read it (RFC 3986 §6.2.2, and what servers do beyond
 * it): encoded unreserved characters decoded, encoded slashes and backslashes taken for slashes,
 * empty segments dropped, dot segments resolved, also those with parameters (`/..;x/`).
 * A rule is judged on this form; a request whose raw path would be judged otherwise is refused.
 */
export function normalisePath(path: string): string {
  if (PLAIN_PATH.test(path)) return path;
  const decoded = path
    .replace(/%([0-9A-Fa-f]{2})/g, (encoded, hex: string) => {
      const char = String.fromCharCode(Number.parseInt(hex, 16));
      return UNRESERVED.test(char) || char === "/" || char === "\\" ? char : encoded.toUpperCase();
    })
    .replaceAll("\\", "/");
  const segments = decoded.split("/").slice(1);
  const kept: string[] = [];
  for (const [index, segment] of segments.entries()) {
    const name = /^\.{1,2};/.test(segment) ? segment.slice(0, segment.indexOf(";")) : segment;
    const last = index === segments.length - 1;
    if (name === "..") kept.pop();
    if (name === "." || name === "..") {
      if (last) kept.push("");
    } else if (name !== "" || last) kept.push(segment);
  }
  return `/${kept.join("/")}`;
}

/**
 * The path as a server reads it that takes parameters out of every segment (`/a;v=1/b`, `/;/a`) before
 * it looks for what is asked, as Java's do; also where the semicolon is encoded.
 */
export function pathWithoutParameters(path: string): string {
  if (PLAIN_PATH.test(path)) return path;
  return normalisePath(path.replace(/(?:;|%3b)[^/\\%]*(?:%(?!2f|5c)[^/\\%]*)*/gi, ""));
}
