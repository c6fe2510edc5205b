/**
 * The vocabulary of the policy: what is known about an attempt (facts), where it is judged (layer),
 * and what came of it (verdict).
 */

/** Every {@linkcode Layer}. */
export const LAYERS = [
  "dns",
  "grant",
  "connect",
  "sni",
  "http",
  "dial",
  "agent",
  "container",
] as const;

/** Where an attempt is judged. Each layer knows other facts: see docs/architecture.md. */
export type Layer = typeof LAYERS[number];

/**
 * What is known about one attempt. A namespace or field that is absent is *unknown*, which is not
 * the same as empty: a condition that needs it is unknown too (three-valued evaluation).
 * Names are those of the CEL variables. Hostnames are normalised: lower-case A-labels, no
 * trailing dot. Addresses are canonical text.
 */
export interface Facts {
  readonly network?: {
    readonly hostname?: string;
    readonly ip?: string;
    /** 1–65535. */
    readonly port?: number;
    /** `tcp` or `udp`. */
    readonly protocol?: string;
  };
  readonly http?: {
    /** Upper case; `CONNECT` for a tunnel. */
    readonly method?: string;
    /** With leading `/`, without the query. */
    readonly path?: string;
    readonly host?: string;
    /** Names in lower case; repeated fields joined with `, `. */
    readonly headers?: Readonly<Record<string, string>>;
    /** Declared bytes; null: there is a body, and nobody knows its length before it has been sent. */
    readonly body_size?: number | null;
  };
  readonly dns?: {
    readonly query?: string;
    /** Upper case, such as `AAAA`. */
    readonly record_type?: string;
  };
  readonly agent?: {
    readonly name?: string;
    /**
     * No fact for conditions: what tells this agent from every other, of now and of later. Its
     * container's id, or the name of its cable; absent while it is not known.
     */
    readonly key?: string;
  };
  readonly docker?: {
    readonly image?: string;
    readonly command?: readonly string[];
    readonly volumes?: readonly string[];
    readonly env_keys?: readonly string[];
    readonly capabilities?: readonly string[];
  };
  readonly run?: {
    readonly tool?: string;
    readonly args?: readonly string[];
    readonly flags?: readonly string[];
    readonly cwd?: string;
    readonly context?: Readonly<Record<string, unknown>>;
  };
}

/** How an allowed attempt may leave the host. */
export interface Egress {
  /** `proxy`: through the proxy alone. `direct_ip`: past it, too, to addresses that DNS told. */
  readonly mode: "proxy" | "direct_ip";
  /** Destination ports; absent: the layer's default (443 for CONNECT, any for plain HTTP). */
  readonly ports?: readonly number[];
  /** The destination may resolve to a private or otherwise restricted address. */
  readonly allowPrivateIps: boolean;
  /** `sni`: the ClientHello must name the CONNECT host. `any`: whatever bytes the client sends. */
  readonly tls: "sni" | "any";
  /** The longest body of a plain request; absent: {@linkcode DEFAULT_BODY_BYTES}. */
  readonly maxBodyBytes?: number;
}

/** The longest body of a plain request, unless the rule that admits it says otherwise: 16 MiB. */
export const DEFAULT_BODY_BYTES = 16 * 1024 * 1024;

/**
 * No rule admits a longer body: 1 GiB. Bodies pass through and take no memory, but a server that
 * keeps their length in 32 bits with a sign would take the end of one from 2 GiB on for another
 * request, which nobody has judged.
 */
export const MAX_BODY_BYTES = 1024 * 1024 * 1024;

/** What an allow rule without `egress` grants. */
export const DEFAULT_EGRESS: Egress = { mode: "proxy", allowPrivateIps: false, tls: "sni" };

/** Names a rule and where it is written. */
export interface RuleRef {
  readonly id: string;
  /** Path of the file as loaded. */
  readonly file: string;
  /** Line of the rule's `id`, from 1. */
  readonly line: number;
}

/** Why the verdict is what it is. */
export type VerdictReason =
  /** The rule's condition decided. */
  | "rule"
  /** A block rule failed while being evaluated, which blocks (decision D9). */
  | "rule_error"
  /** A rule would allow the host, but not this port or protocol (decision D25). */
  | "port"
  /** The rule allows the host through the proxy alone (`egress.mode`). */
  | "proxy_only"
  /** The rule allows it, but no body as long as this: of a whole request alone, not of one layer. */
  | "limit"
  /** No rule matched: default deny. */
  | "default"
  /** No rule allows it, and the agent is observed: see {@linkcode withObserved}. */
  | "observed";

/** A rule whose condition could not be evaluated, and why; for the operator, never for the agent. */
export interface RuleFailure extends RuleRef {
  readonly message: string;
}

/** What is opened towards an address in the kernel. */
export interface Opening {
  readonly protocol: "tcp" | "udp";
  /** 1–65535. */
  readonly port: number;
}

/** What an allowed name's addresses are to be opened for (`egress.mode: direct_ip`). */
export interface DirectTerms {
  /** To be judged at layer `grant` with each address; at least one. */
  readonly openings: readonly Opening[];
  /** No rule of another mode may serve this name: an address that is not opened is of no use. */
  readonly isOnly: boolean;
}

/**
 * What an allowed name may be answered with: the union over the deciding rule and those after it that
 * could still apply, since all of them wait for the same DNS answer.
 */
export interface DnsTerms {
  /** A rule reads `dns.record_type`: its author thought of types, so other types pass, too. */
  readonly namesRecordType: boolean;
  /** A rule names this very host, and not only a suffix or pattern that it matches. */
  readonly namesHost: boolean;
  /** Absent: no `direct_ip` rule may serve this name. */
  readonly direct?: DirectTerms;
}

/** The policy's answer for one attempt at one layer. */
export interface Verdict {
  readonly allowed: boolean;
  readonly reason: VerdictReason;
  /** The rule that decided; for `port`, the rule that came nearest; null for `default`. */
  readonly rule: RuleRef | null;
  /** The deciding allow rule's egress; null when blocked. */
  readonly egress: Egress | null;
  /** Only for a name that the `dns` layer allows. */
  readonly dns?: DnsTerms;
  /** Rules that failed on the way, the first few; absent when there are none (decision D9). */
  readonly failures?: readonly RuleFailure[];
}
