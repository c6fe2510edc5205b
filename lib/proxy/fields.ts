/**
 * Field lines, the part of the grammar that request and response heads share (RFC 9110 §5,
 * RFC 9112 §5), and which of them end at a proxy.
 */

/** One header field; texts are byte strings. */
export interface Field {
  /** Lower case: field names are case-insensitive. */
  readonly name: string;
  /** As sent, for the next hop. */
  readonly spelling: string;
  /** Without the white space around it. */
  readonly value: string;
}

/** `token` of RFC 9110 §5.6.2. */
export const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

/** `field-value` of RFC 9110 §5.5: no control characters but the tab; other bytes are opaque. */
const FIELD_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;

/** Field name and value; used where we write a field ourselves. */
export function field(spelling: string, value: string): Field {
  return { name: spelling.toLowerCase(), spelling, value };
}

/**
 * Reads one field line (without its CRLF), or null when it is malformed. White space before the
 * colon and folded lines are malformed: parsers disagree about them (RFC 9112 §5.1, §5.2).
 */
export function parseFieldLine(line: string): Field | null {
  const colon = line.indexOf(":");
  if (colon < 0) return null;
  const spelling = line.slice(0, colon);
  const value = trimWhitespace(line.slice(colon + 1));
  return TOKEN.test(spelling) && FIELD_VALUE.test(value) ? field(spelling, value) : null;
}

/**
 * A field's name to servers that hand fields on as variables (CGI and its heirs: WSGI, Rack, PHP), with
 * hyphens: none of them can tell an underscore from a hyphen, and lighttpd no sign from another.
 * @param name In lower case.
 */
export function variableName(name: string): string {
  return name.replaceAll(/[^a-z0-9]/g, "-");
}

/** Reads the field lines of a head, or null when one of them is malformed. */
export function parseFieldLines(lines: readonly string[]): Field[] | null {
  const fields: Field[] = [];
  for (const line of lines) {
    const parsed = parseFieldLine(line);
    if (parsed === null) return null;
    fields.push(parsed);
  }
  return fields;
}

/** The values of every field called `name` (lower case), in order. */
export function valuesOf(fields: readonly Field[], name: string): string[] {
  return fields.filter((each) => each.name === name).map((each) => each.value);
}

/** The members of a comma-separated list spread over any number of fields, in lower case. */
export function listMembers(values: readonly string[]): string[] {
  return values.flatMap((value) => value.split(","))
    .map((member) => trimWhitespace(member).toLowerCase())
    .filter((member) => member !== "");
}

/** Fields that concern one connection and never pass a proxy (RFC 9110 §7.6.1). */
const HOP_BY_HOP: ReadonlySet<string> = new Set([
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

/** What may go on to the next hop: neither hop-by-hop fields nor what `Connection` names. */
export function endToEnd(fields: readonly Field[]): Field[] {
  const named = new Set(listMembers(valuesOf(fields, "connection")));
  return fields.filter((each) => !HOP_BY_HOP.has(each.name) && !named.has(each.name));
}

/** A head section in bytes-as-text: first line, fields, empty line. */
export function renderHead(firstLine: string, fields: readonly Field[]): string {
  return [firstLine, ...fields.map((each) => `${each.spelling}: ${each.value}`), "", ""].join(
    "\r\n",
  );
}

/**
 * Where the head at the start of `bytes` ends: the index behind its empty line, or null while that
 * has not arrived. `"bare_line_feed"`: a line ends without CR, which some parsers take for a line
 * end and others do not. `from` is where an earlier look left off.
 */
export function headEnd(bytes: Uint8Array, from: number): number | null | "bare_line_feed" {
  for (let at = bytes.indexOf(0x0a, from); at >= 0; at = bytes.indexOf(0x0a, at + 1)) {
    if (bytes[at - 1] !== 0x0d) return "bare_line_feed";
    if (bytes[at - 2] === 0x0a && bytes[at - 3] === 0x0d) return at + 1;
  }
  return null;
}

/** `OWS` of RFC 9110 §5.6.3 is space and tab, nothing else that `trim()` removes. */
function trimWhitespace(text: string): string {
  let start = 0;
  let end = text.length;
  while (start < end && isWhitespace(text.charCodeAt(start))) start++;
  while (end > start && isWhitespace(text.charCodeAt(end - 1))) end--;
  return text.slice(start, end);
}

function isWhitespace(code: number): boolean {
  return code === 0x20 || code === 0x09;
}
