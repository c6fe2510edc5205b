/** The proxies that ours is compared with: no cache, no logs, no rules. */
import { PEER_ADDRESS } from "../stage.ts";
import { configPath, type Peer } from "./peer.ts";

/** One process (`-N`), which is one worker. */
const SQUID: Peer = {
  name: "squid",
  port: 3128,
  argv: ["squid", "-N", "-f", configPath("squid.conf")],
  configPath: configPath("squid.conf"),
  config: `http_port ${PEER_ADDRESS}:3128
http_access allow all
cache deny all
cache_mem 0
access_log none
cache_log /dev/null
cache_store_log none
pid_filename none
netdb_filename none
coredump_dir none
pinger_enable off
max_filedescriptors 8192
via off
forwarded_for delete
`,
};

const TINYPROXY: Peer = {
  name: "tinyproxy",
  port: 8888,
  argv: ["tinyproxy", "-d", "-c", configPath("tinyproxy.conf")],
  configPath: configPath("tinyproxy.conf"),
  config: `User root
Group root
Listen ${PEER_ADDRESS}
Port 8888
Timeout 60
LogFile "/dev/null"
LogLevel Critical
MaxClients 2000
ConnectPort 443
DisableViaHeader Yes
`,
};

/** Every proxy to compare with. */
export const PROXIES: readonly Peer[] = [SQUID, TINYPROXY];
