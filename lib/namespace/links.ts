/**
 * What the host's end of a namespace agent's cable says about the agent: the kernel holds it in the
 * link's alias, which only root on the host can write. So the registry of namespace agents needs no
 * file, survives every restart of the daemon, and forgets an agent when the kernel does. Pure.
 */
import type { Agent } from "../agents.ts";
import { Ip } from "../net/ip.ts";

/** Names of the host's ends: `ocr` and 8 digits, within the 15 bytes that a name may have. */
const NAME = /^ocr[0-9a-f]{8}$/;
const MARK = "outcall-run";
/** Bytes that the kernel keeps of an alias (IFALIASZ). */
const MAX_ALIAS_BYTES = 255;

/** A name for a new cable. */
export function newPortName(): string {
  return `ocr${crypto.randomUUID().slice(0, 8)}`;
}

/** Whether a link may be the host's end of an agent's cable. */
export function isPortName(name: string): boolean {
  return NAME.test(name);
}

/**
 * The alias that says who is at the other end.
 * @throws RangeError when a part has spaces, or all is longer than the kernel keeps.
 */
export function aliasOf({ address, network, name }: Agent): string {
  const alias = [MARK, address, network, name].join(" ");
  if (alias.split(" ").length !== 4 || alias.length >= MAX_ALIAS_BYTES) {
    throw new RangeError(`'${alias}' is no alias`);
  }
  return alias;
}

/** The agent behind a link, or null when it is not the host's end of an agent's cable. */
export function agentBehind(link: { readonly name: string; readonly alias: string }): Agent | null {
  const [mark, address = "", network, name, ...more] = link.alias.split(" ");
  const ip = Ip.parse(address);
  if (!isPortName(link.name) || mark !== MARK || ip?.version !== 4 || more.length > 0) return null;
  if (network === undefined || name === undefined) return null;
  return { address: ip.text, network, name, cable: link.name };
}
