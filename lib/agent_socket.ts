/**
 * Where the agent socket is on the host (decision D20).
 *
 * A bind mount of the socket file itself shows the file of the daemon that made it for ever, so that
 * a container started before a restart would talk to nobody. What is mounted is therefore a folder
 * in which each daemon puts its socket anew, and nothing else.
 */
import { join } from "node:path";

/** The socket's name in its folder, on the host and in a container. */
const AGENT_SOCKET_NAME = "agent.sock";

/**
 * The folder to mount into containers for the agent socket at `socketPath` (absolute): next to it,
 * `/run/outcall/agent.sock.d` for `/run/outcall/agent.sock`.
 */
export function agentSocketFolder(socketPath: string): string {
  return `${socketPath}.d`;
}

/** The agent socket in its folder. */
export function agentSocketInFolder(socketPath: string): string {
  return join(agentSocketFolder(socketPath), AGENT_SOCKET_NAME);
}
