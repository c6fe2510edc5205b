/** What rules call an agent (S013-FR-001, FR-002). Pure. */

/** Label by which an operator names an agent explicitly. */
export const AGENT_LABEL = "outcall.agent";

/**
 * The agent's name: the label where it is set, else the container's name without a trailing
 * `-<digits>`, so that `worker-1` and `worker-2` are both `worker`.
 * @param containerName As Docker gives it, with or without the leading slash.
 * @param labels Labels the operator set; an image's own must not be among them.
 */
export function agentName(
  containerName: string,
  labels: Readonly<Record<string, string>>,
): string {
  const label = labels[AGENT_LABEL];
  if (label !== undefined && label !== "") return label;
  return containerName.replace(/^\//, "").replace(/-[0-9]+$/, "");
}

/**
 * The name of a container in Docker's list, which also holds its aliases (`/other/alias`) where
 * containers are linked.
 * @param names With leading slashes, as Docker lists them.
 */
export function containerName(names: readonly string[]): string {
  return (names.find((name) => name.lastIndexOf("/") <= 0) ?? "").replace(/^\//, "");
}
