/** The narrowest rule file for one URL and one agent. */

/** A proposal, or what is wrong with the URL. */
export type Proposed =
  | { readonly ok: true; readonly ruleFile: string }
  | { readonly ok: false; readonly message: string };

/** A text in CEL and, within single quotes, in YAML. */
function celText(text: string): string {
  return JSON.stringify(text).replaceAll("'", "''");
}

/**
 * Rules that allow `agent` (its name, as the daemon knows it) to reach what `target` names: its host
 * and port, and of plain HTTP the path, unless the URL is all about a host. Of https no more can be
 * seen.
 * @param method Null: none was named, which means GET for a path, and any for a host.
 * The same arguments give the same text, so that asking twice is one request.
 */
export async function proposeRules(
  agent: string,
  target: string,
  method: string | null,
): Promise<Proposed> {
  const url = URL.parse(target);
  if (url === null || (url.protocol !== "https:" && url.protocol !== "http:")) {
    return { ok: false, message: `"${target}" is not an http or https URL` };
  }
  if (url.username !== "" || url.password !== "") {
    return { ok: false, message: "a URL with credentials in it must not be sent" };
  }
  const isTls = url.protocol === "https:";
  const port = url.port === "" ? (isTls ? 443 : 80) : Number(url.port);
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const hasPath = /^[^:]+:\/\/[^/?#]+[/?#]/.test(target);
  const onlyMethod = method ?? (hasPath ? "GET" : null);
  const clauses = [
    `agent.name == ${celText(agent)}`,
    `http.host == ${celText(host)}`,
    `network.port == ${port}`,
    ...(isTls || onlyMethod === null ? [] : [`http.method == ${celText(onlyMethod)}`]),
    ...(isTls || !hasPath ? [] : [`http.path == ${celText(url.pathname)}`]),
  ];
  const condition = clauses.join(" && ");
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(condition));
  const id = Array.from(new Uint8Array(hash, 0, 4), (byte) => byte.toString(16).padStart(2, "0"));
  return {
    ok: true,
    ruleFile: [
      'version: "1"',
      "rules:",
      `  - id: agent-request-${id.join("")}`,
      `    condition: '${condition}'`,
      "    action: allow",
      "    egress:",
      "      mode: proxy",
      "",
    ].join("\n"),
  };
}
