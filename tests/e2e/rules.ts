/** A rule file that allows one host, and nothing else. */
export const ALLOW_EXAMPLE = `
version: "1"
rules:
  - id: allow-example
    action: allow
    condition: http.host == "example.com"
`;
