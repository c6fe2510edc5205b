/** Which subnet a managed network gets (decision D4, S002-FR-012 to FR-015). Pure. */
import { OutcallError } from "../errors.ts";
import { Cidr } from "../net/cidr.ts";
import { Ip } from "../net/ip.ts";

/** Addresses that are taken, and by whom. */
export interface Claim {
  readonly block: Cidr;
  /** For people, such as `network "bridge"`. */
  readonly owner: string;
}

/** An IPv4 route of the host. */
export interface HostRoute {
  /** CIDR form; `0.0.0.0/0` is the default route. */
  readonly destination: string;
  /** Interface that packets leave by; null where there is no single one. */
  readonly link: string | null;
}

/** Where a network's addresses come from. */
export interface AddressPlan {
  readonly subnet: Cidr;
  readonly gateway: Ip;
}

/** What the operator asked for; absent parts are chosen. */
export interface AddressRequest {
  readonly subnet?: string | undefined;
  readonly gateway?: string | undefined;
}

/** Size of a network that did not ask for one. */
const NETWORK_PREFIX_LENGTH = 24;

/** RFC 1918 §3. */
const PRIVATE_RANGES = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];

function isPrivate(subnet: Cidr): boolean {
  return PRIVATE_RANGES.some((range) => {
    const outer = Cidr.parse(range);
    return outer !== null && subnet.within(outer);
  });
}

/** The block that `text` lies in: Docker keeps a subnet as it was typed, host bits and all. */
function looseBlock(text: string): Cidr | null {
  const [address = "", digits = ""] = text.split("/");
  const ip = Ip.parse(address);
  const prefix = Number(digits);
  if (ip === null || !/^\d{1,3}$/.test(digits) || prefix > ip.bytes.length * 8) return null;
  const bytes = ip.bytes.map((byte, i) => {
    const keep = Math.min(8, Math.max(0, prefix - i * 8));
    return byte & (0xff00 >> keep) & 0xff;
  });
  return Cidr.parse(`${Ip.fromBytes(bytes).text}/${prefix}`);
}

/** Claims of Docker networks; subnets nobody can read are left to Docker's own overlap check. */
export function networkClaims(
  networks: readonly { readonly name: string; readonly subnets: readonly string[] }[],
): Claim[] {
  return networks.flatMap(({ name, subnets }) =>
    subnets.flatMap((subnet) => {
      const block = looseBlock(subnet);
      return block === null ? [] : [{ block, owner: `network "${name}"` }];
    })
  );
}

/**
 * Claims of the host's routes. Not those by `ownBridge`, which is to carry the new network and may
 * be there already. Not those wider than any private range (a /8): that is a default route, which
 * VPN clients also write as two /1 halves.
 */
export function routeClaims(routes: readonly HostRoute[], ownBridge: string): Claim[] {
  return routes.filter(({ link }) => link !== ownBridge).flatMap(({ destination, link }) => {
    const block = looseBlock(destination);
    if (block === null || block.prefix < 8) return [];
    return [{ block, owner: `the host's route${link === null ? "" : ` by ${link}`}` }];
  });
}

function invalid(code: string, message: string, hint: string): OutcallError {
  return new OutcallError(400, code, message, { hint });
}

/** S002-FR-015: canonical, private, and large enough for a gateway and a container. */
function explicitSubnet(text: string): Cidr {
  const quoted = JSON.stringify(text.slice(0, 80));
  const example = "Give it as 10.200.50.0/24.";
  const subnet = Cidr.parse(text);
  if (subnet === null) {
    throw invalid("network.subnet", `subnet ${quoted}: ${Cidr.problem(text)}`, example);
  }
  if (subnet.network.version !== 4) {
    throw invalid("network.subnet", `subnet ${quoted}: managed networks are IPv4`, example);
  }
  if (!isPrivate(subnet)) {
    const ranges = PRIVATE_RANGES.join(", ");
    throw invalid("network.subnet", `subnet ${quoted}: it is not inside one of ${ranges}`, example);
  }
  if (subnet.prefix > 30) {
    throw invalid("network.subnet", `subnet ${quoted}: no room for gateway and container`, example);
  }
  return subnet;
}

/** Neither the subnet's own address nor its broadcast address can be an interface's. */
function isUsable(ip: Ip, subnet: Cidr): boolean {
  return subnet.contains(ip) && !ip.equals(subnet.network) && !ip.equals(subnet.last);
}

function explicitGateway(text: string, subnet: Cidr): Ip {
  const gateway = Ip.parse(text);
  if (gateway === null || !isUsable(gateway, subnet)) {
    throw invalid(
      "network.gateway",
      `gateway ${JSON.stringify(text.slice(0, 80))} is not a usable address of ${subnet}`,
      `Leave it out to get ${subnet.address(1n)}.`,
    );
  }
  return gateway;
}

/** The first free /24 of `block` in the order of `from`, or null. */
export function allocate(
  block: Cidr,
  claims: readonly Claim[],
  from: "bottom" | "top",
): Cidr | null {
  const count = block.subnetCount(NETWORK_PREFIX_LENGTH);
  for (let i = 0n; i < count; i++) {
    const slot = block.subnet(NETWORK_PREFIX_LENGTH, from === "bottom" ? i : count - 1n - i);
    if (!claims.some((claim) => claim.block.overlaps(slot))) return slot;
  }
  return null;
}

/**
 * Checks what can be checked of a request without knowing what is taken, so that a typing mistake
 * is told before Docker is asked.
 * @throws OutcallError `network.subnet` or `network.gateway` (400).
 */
export function checkAddresses(request: AddressRequest): void {
  if (request.subnet !== undefined) {
    const subnet = explicitSubnet(request.subnet);
    if (request.gateway !== undefined) explicitGateway(request.gateway, subnet);
  } else if (request.gateway !== undefined) {
    throw invalid(
      "network.gateway",
      "a gateway needs its subnet",
      "Give --subnet as well, or leave both out.",
    );
  }
}

/**
 * Subnet and gateway of a new network: as asked for, or the first free /24 of `block`.
 * @throws OutcallError as {@linkcode checkAddresses}; `network.overlap` (409) naming who has the
 * addresses; `network.exhausted` (409).
 */
export function planAddresses(
  request: AddressRequest,
  block: Cidr,
  claims: readonly Claim[],
  from: "bottom" | "top",
): AddressPlan {
  checkAddresses(request);
  if (request.subnet === undefined) {
    const subnet = allocate(block, claims, from);
    if (subnet !== null) return { subnet, gateway: subnet.address(1n) };
    throw new OutcallError(
      409,
      "network.exhausted",
      `no available subnets in ${block}`,
      {
        hint: "Destroy a network, give --subnet, or start the daemon with another --subnet-block.",
      },
    );
  }
  const subnet = explicitSubnet(request.subnet);
  const taken = claims.find((claim) => claim.block.overlaps(subnet));
  if (taken !== undefined) {
    throw new OutcallError(
      409,
      "network.overlap",
      `subnet ${subnet} overlaps ${taken.owner} (${taken.block})`,
      { hint: "Choose another --subnet, or leave it out." },
    );
  }
  const gateway = request.gateway === undefined
    ? subnet.address(1n)
    : explicitGateway(request.gateway, subnet);
  return { subnet, gateway };
}
