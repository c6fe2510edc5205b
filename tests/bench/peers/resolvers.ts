/** The resolvers that the DNS filter is compared with: caching, without logs. */
import { BLOCKED_NAMES, NAME_COUNT } from "../names.ts";
import { ORIGIN_ADDRESS, PEER_ADDRESS } from "../stage.ts";
import { configPath, type Peer } from "./peer.ts";

/** One thread, nothing to validate. */
const UNBOUND: Peer = {
  name: "unbound",
  port: 5301,
  argv: ["unbound", "-d", "-c", configPath("unbound.conf")],
  configPath: configPath("unbound.conf"),
  config: `server:
  interface: ${PEER_ADDRESS}@5301
  access-control: 0.0.0.0/0 allow
  num-threads: 1
  module-config: "iterator"
  do-ip6: no
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  logfile: ""
  verbosity: 0
${BLOCKED_NAMES.map((name) => `  local-zone: "${name}." always_nxdomain\n`).join("")}
remote-control:
  control-enable: no
forward-zone:
  name: "."
  forward-addr: ${ORIGIN_ADDRESS}
`,
};

const DNSMASQ: Peer = {
  name: "dnsmasq",
  port: 5302,
  argv: ["dnsmasq", "--keep-in-foreground", `--conf-file=${configPath("dnsmasq.conf")}`],
  configPath: configPath("dnsmasq.conf"),
  config: `port=5302
listen-address=${PEER_ADDRESS}
bind-interfaces
user=root
pid-file=
no-resolv
no-hosts
server=${ORIGIN_ADDRESS}
cache-size=${2 * NAME_COUNT}
${BLOCKED_NAMES.map((name) => `address=/${name}/\n`).join("")}`,
};

/** Every resolver to compare with. */
export const RESOLVERS: readonly Peer[] = [UNBOUND, DNSMASQ];
