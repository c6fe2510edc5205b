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
 * Rules that allow `agent` (its name, as the daemon knows it) to reach what `target` names: for an
 * http URL its host, port, method and path; for https its host and port, since no more can be seen.
 * The same arguments give the same text, so that asking twice is one request.
 */
export async function proposeRules(
  agent: string,
  target: string,
  method: string,
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
  const clauses = [
    `agent.name == ${celText(agent)}`,
    `http.host == ${celText(host)}`,
    `network.port == ${port}`,
    ...(isTls
      ? []
      : [`http.method == ${celText(method)}`, `http.path == ${celText(url.pathname)}`]),
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
