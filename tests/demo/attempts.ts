/**
 * The demo's promises: what an agent tries, what must come of it, and which packet or request the
 * internet would see if it came through.
 */
import { EXAMPLE_ADDRESS, METADATA_ADDRESS, UPSTREAM_RESOLVER } from "../lab/internet/world.ts";
import type { Arrival, Receiver } from "../lab/witness.ts";

/** One attempt and its promise. */
export interface Attempt {
  /** For people; leaves out the options that only make the client brief. */
  readonly title: string;
  readonly argv: readonly string[];
  /** Whether the client is told to use the proxy. */
  readonly proxied: boolean;
  /** What would be seen if it got through. */
  readonly arrives: Arrival;
  /** Who would see it; the internet when absent. */
  readonly receiver?: Receiver;
  readonly allowed: boolean;
  /** Who must decide; `kernel` for packets that no service sees, `none` when no daemon runs. */
  readonly layer: "dns" | "connect" | "sni" | "http" | "kernel" | "none";
  /** What the client must print. */
  readonly client: RegExp;
  /** What the unfiltered machine runs to show that it would arrive; the same when absent. */
  readonly control?: readonly string[];
}

/** The quickstart's rule file, word for word. */
export const QUICKSTART_RULE = `\
version: "1"
rules:
  - id: allow-openai
    description: "agent may call the OpenAI API"
    condition: 'http.host == "api.openai.com"'
    action: allow
    egress:
      mode: proxy
`;

const CURL = ["curl", "-sS", "-o", "/dev/null", "-m", "3", "-w", "%{http_code}"];
const DIG = ["dig", "+noall", "+comments", "+answer", "+time=1", "+tries=1"];
const NO_ANSWER = /timed out/;

const ALLOWED_HTTPS: Attempt = {
  title: "curl https://api.openai.com/v1/models",
  argv: [...CURL, "https://api.openai.com/v1/models"],
  proxied: true,
  arrives: { port: 443, name: "api.openai.com" },
  allowed: true,
  layer: "sni",
  client: /^401$/m,
};

const BLOCKED_TCP: Attempt = {
  title: "nc -zv 1.1.1.1 443",
  argv: ["nc.openbsd", "-zv", "-w", "2", "1.1.1.1", "443"],
  proxied: false,
  arrives: { to: "1.1.1.1", protocol: "tcp" },
  allowed: false,
  layer: "kernel",
  client: NO_ANSWER,
};

const BLOCKED_DNS: Attempt = {
  title: "dig example.com @8.8.8.8",
  argv: [...DIG, "example.com", "@8.8.8.8"],
  proxied: false,
  arrives: { to: "8.8.8.8" },
  allowed: false,
  layer: "kernel",
  client: NO_ANSWER,
};

/** Through the front door: the one host of the rule, by each protocol the rule covers. */
export const ALLOWED: readonly Attempt[] = [
  {
    title: "dig api.openai.com",
    argv: [...DIG, "api.openai.com"],
    proxied: false,
    arrives: { to: UPSTREAM_RESOLVER, name: "api.openai.com" },
    allowed: true,
    layer: "dns",
    client: /104\.18\.6\.192/,
  },
  ALLOWED_HTTPS,
  {
    title: "curl http://api.openai.com/v1/models",
    argv: [...CURL, "http://api.openai.com/v1/models"],
    proxied: true,
    arrives: { port: 80, name: "api.openai.com" },
    allowed: true,
    layer: "http",
    client: /^401$/m,
  },
];

/** Every other way out that comes to mind. */
export const BLOCKED: readonly Attempt[] = [
  {
    title: "dig example.com",
    argv: [...DIG, "example.com"],
    proxied: false,
    arrives: { name: "example.com" },
    allowed: false,
    layer: "dns",
    client: /NXDOMAIN/,
  },
  {
    title: "dig TXT secret.example.com (data in a name)",
    argv: [...DIG, "TXT", "secret.example.com"],
    proxied: false,
    arrives: { name: "secret.example.com" },
    allowed: false,
    layer: "dns",
    client: /NXDOMAIN/,
  },
  BLOCKED_DNS,
  {
    title: "dig +tcp example.com @1.1.1.1",
    argv: [...DIG, "+tcp", "example.com", "@1.1.1.1"],
    proxied: false,
    arrives: { to: "1.1.1.1" },
    allowed: false,
    layer: "kernel",
    client: NO_ANSWER,
  },
  {
    title: "curl https://example.com, no proxy",
    argv: [...CURL, "https://example.com"],
    proxied: false,
    arrives: { name: "example.com" },
    allowed: false,
    layer: "dns",
    client: /Could not resolve host/,
  },
  {
    title: `curl --resolve example.com:443:${EXAMPLE_ADDRESS} https://example.com`,
    argv: [...CURL, "--resolve", `example.com:443:${EXAMPLE_ADDRESS}`, "https://example.com"],
    proxied: true,
    arrives: { to: EXAMPLE_ADDRESS },
    allowed: false,
    layer: "connect",
    client: /CONNECT tunnel failed, response 403/,
  },
  {
    title: "the same, no proxy",
    argv: [...CURL, "--resolve", `example.com:443:${EXAMPLE_ADDRESS}`, "https://example.com"],
    proxied: false,
    arrives: { to: EXAMPLE_ADDRESS },
    allowed: false,
    layer: "kernel",
    client: NO_ANSWER,
  },
  {
    title: "curl https://github.com",
    argv: [...CURL, "https://github.com"],
    proxied: true,
    arrives: { name: "github.com" },
    allowed: false,
    layer: "connect",
    client: /CONNECT tunnel failed, response 403/,
  },
  {
    title: "curl http://example.com/",
    argv: [...CURL, "http://example.com/"],
    proxied: true,
    arrives: { name: "example.com" },
    allowed: false,
    layer: "http",
    client: /^403$/m,
  },
  {
    title: "CONNECT api.openai.com, then TLS for example.com",
    argv: [...CURL, "--connect-to", "::api.openai.com:443", "https://example.com"],
    proxied: true,
    arrives: { port: 443, name: "example.com" },
    allowed: false,
    layer: "sni",
    client: /SSL_ERROR_SYSCALL|unexpected eof|reset by peer/,
  },
  {
    title: "CONNECT api.openai.com:22",
    argv: [...CURL, "https://api.openai.com:22"],
    proxied: true,
    arrives: { port: 22 },
    allowed: false,
    layer: "connect",
    client: /CONNECT tunnel failed, response 403/,
  },
  {
    title: "curl through the proxy to the metadata address",
    argv: [...CURL, `http://${METADATA_ADDRESS}/latest/meta-data/`],
    proxied: true,
    arrives: { to: METADATA_ADDRESS },
    allowed: false,
    layer: "http",
    client: /^403$/m,
  },
  {
    title: "curl to the metadata address, no proxy",
    argv: [...CURL, `http://${METADATA_ADDRESS}/latest/meta-data/`],
    proxied: false,
    arrives: { to: METADATA_ADDRESS },
    allowed: false,
    layer: "kernel",
    client: NO_ANSWER,
  },
  BLOCKED_TCP,
  {
    title: "UDP port 443 (QUIC) to 1.1.1.1",
    argv: ["bash", "-c", "echo hi | nc.openbsd -u -w 1 1.1.1.1 443 | grep . || echo no answer"],
    proxied: false,
    arrives: { to: "1.1.1.1", protocol: "udp", port: 443 },
    allowed: false,
    layer: "kernel",
    client: /no answer/,
  },
  {
    title: "ping 1.1.1.1",
    argv: ["ping", "-c", "1", "-W", "1", "1.1.1.1"],
    proxied: false,
    arrives: { to: "1.1.1.1", protocol: "icmp" },
    allowed: false,
    layer: "kernel",
    client: /0 received/,
  },
];

/** The host itself: every port of every address, but the gateway's DNS filter and proxy. */
export function blockedOnHost(
  addresses: { readonly gateway: string; readonly uplink: string; readonly control: string },
  port: number,
  receiver: Receiver,
): readonly Attempt[] {
  const knock = (address: string): string[] => {
    return ["nc.openbsd", "-zv", "-w", "2", address, `${port}`];
  };
  const attempt = (address: string, what: string): Attempt => ({
    title: `nc -zv ${address} ${port} (${what})`,
    argv: knock(address),
    proxied: false,
    arrives: { port },
    receiver,
    allowed: false,
    layer: "kernel",
    client: NO_ANSWER,
    control: knock(addresses.control),
  });
  return [
    attempt(addresses.gateway, "another port of the gateway"),
    attempt(addresses.uplink, "another address of the host"),
  ];
}

/** While no daemon runs: the way out that was allowed is gone, and no other has opened. */
export const DAEMON_DEAD: readonly Attempt[] = [
  { ...ALLOWED_HTTPS, allowed: false, layer: "none", client: /Couldn't connect|timed out/ },
  BLOCKED_TCP,
  BLOCKED_DNS,
];

/** After the restart. */
export const DAEMON_BACK: readonly Attempt[] = [ALLOWED_HTTPS, BLOCKED_TCP];
