/** The shape of a rule's `egress` block. */
import { isMap, isScalar, isSeq } from "yaml";
import { describe, type NodeReader } from "./nodes.ts";
import { MAX_OPENINGS } from "./ports.ts";
import { DEFAULT_EGRESS, type Egress, MAX_BODY_BYTES } from "./types.ts";

const EGRESS_FIELDS = ["mode", "ports", "allow_private_ips", "tls", "max_body_bytes"];

/**
 * Reads the block; what is wrong with it is reported.
 * @param action The rule's; null where that is wrong itself.
 * @returns null for block rules and for a block that is no mapping.
 */
export function readEgress(
  node: unknown,
  action: "allow" | "block" | null,
  reader: NodeReader,
): Egress | null {
  if (node === undefined) return action === "allow" ? DEFAULT_EGRESS : null;
  if (action === "block") {
    reader.error(node, {
      code: "rules.egress",
      message: "'egress' is for allow rules: a block rule lets nothing out",
      hint: "Remove it.",
    });
    return null;
  }
  if (!isMap(node)) {
    reader.error(node, {
      code: "rules.type",
      message: `'egress' must be a mapping of fields, not ${describe(node)}`,
      hint: "For example: egress: { mode: proxy }",
    });
    return null;
  }
  const fields = reader.fields(node, EGRESS_FIELDS, "'egress'");
  const mode = readMode(fields.get("mode"), reader);
  const ports = readPorts(fields.get("ports"), reader);
  if (mode === "direct_ip" && ports !== null && ports.length > MAX_OPENINGS) {
    reader.error(fields.get("ports"), {
      code: "rules.egress_ports",
      message: `a direct_ip rule may name ${MAX_OPENINGS} ports, not ${ports.length}`,
      hint: "Each one is opened by itself. Name those that are needed, or use mode: proxy.",
    });
  }
  const maxBodyBytes = readMaxBody(fields.get("max_body_bytes"), reader);
  const tls = fields.has("tls")
    ? reader.choice(fields.get("tls"), "'tls'", ["sni", "any"] as const)
    : DEFAULT_EGRESS.tls;
  return {
    mode,
    ...(ports === null ? {} : { ports }),
    allowPrivateIps: reader.boolean(
      fields.get("allow_private_ips"),
      "'allow_private_ips'",
      DEFAULT_EGRESS.allowPrivateIps,
    ),
    tls: tls ?? DEFAULT_EGRESS.tls,
    ...(maxBodyBytes === null ? {} : { maxBodyBytes }),
  };
}

function readMode(node: unknown, reader: NodeReader): Egress["mode"] {
  if (node === undefined) return DEFAULT_EGRESS.mode;
  const mode = reader.choice(node, "'mode'", ["proxy", "direct_ip", "intercept"] as const);
  if (mode === "direct_ip") return mode;
  if (mode === "intercept") {
    reader.error(node, {
      code: "rules.egress_mode",
      message: "mode 'intercept' needs a certificate authority, and none is loaded",
      hint: "Use mode: proxy; HTTPS is then matched by host name.",
    });
  }
  return DEFAULT_EGRESS.mode;
}

/** Bytes, or null where none are given. */
function readMaxBody(node: unknown, reader: NodeReader): number | null {
  if (node === undefined) return null;
  const value = isScalar(node) ? node.value : undefined;
  const isCount = typeof value === "number" && Number.isInteger(value) && value >= 1;
  if (isCount && value <= MAX_BODY_BYTES) return value;
  reader.error(node, {
    code: isCount ? "rules.egress_body" : "rules.type",
    message: `'max_body_bytes' must be a number from 1 to ${MAX_BODY_BYTES}, not ${describe(node)}`,
    hint: isCount
      ? "1 GiB is the most that any rule admits."
      : "In bytes and digits alone; for example 10 MiB: max_body_bytes: 10485760",
  });
  return null;
}

/** Destination ports, or null where none are given. */
function readPorts(node: unknown, reader: NodeReader): number[] | null {
  if (node === undefined) return null;
  const items = isSeq(node) ? node.items : [];
  const ports = items.flatMap((item) => {
    const value = isScalar(item) ? item.value : undefined;
    const valid = typeof value === "number" && Number.isInteger(value) && value >= 1 &&
      value <= 65_535;
    if (valid) return [value];
    reader.error(item, {
      code: "rules.type",
      message: `a port must be a number from 1 to 65535, not ${describe(item)}`,
    });
    return [];
  });
  if (!isSeq(node) || items.length === 0) {
    reader.error(node, {
      code: "rules.type",
      message: `'ports' must be a list of ports, not ${
        isSeq(node) ? "an empty one" : describe(node)
      }`,
      hint: "For example: ports: [443, 8443]",
    });
  }
  return ports;
}
