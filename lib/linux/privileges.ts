/**
 * The remedy from the troubleshooting page. Capabilities of the program's file (setcap) are no remedy:
 * those do not reach `nft`, which the daemon runs.
 */
export const NET_ADMIN_HINT =
  "the daemon needs NET_ADMIN: in Docker add --cap-add NET_ADMIN; on bare metal run it as root, or " +
  "give its systemd unit AmbientCapabilities=CAP_NET_ADMIN CAP_NET_BIND_SERVICE";
