/** What a test tells the two programs at the ends of the wire, one JSON line each. */

/** One thing that a client does; texts are byte strings. */
export type Step =
  | { readonly do: "send"; readonly text: string }
  /** One byte at a time. */
  | { readonly do: "trickle"; readonly text: string }
  /** Reads up to the end of what this regular expression matches. */
  | { readonly do: "until"; readonly pattern: string }
  /** Sends nothing more. */
  | { readonly do: "finish" }
  /** Reads until the other side closes. */
  | { readonly do: "rest" };

/** A connection that the client is to make; connections run side by side. */
export interface Dialogue {
  readonly id: number;
  readonly to: string;
  readonly port: number;
  readonly steps: readonly Step[];
}

/** What a dialogue read: one text for each step that reads; the last one may be what came before an error. */
export interface Heard {
  readonly id: number;
  readonly texts: readonly string[];
  /** Why it broke off; null when all steps were done. */
  readonly error: string | null;
}

/** How the server treats connections from now on. */
export type Behaviour =
  /** Sends everything back. */
  | { readonly kind: "echo" }
  /** Sends `text` whenever what `after` (a regular expression) matches has arrived. */
  | { readonly kind: "answer"; readonly after: string; readonly text: string }
  /** Sends `text` when a head has arrived, and closes. */
  | { readonly kind: "last"; readonly text: string };

/** What the server is told: how to behave, or to print what has arrived. */
export type Instruction = Behaviour | {
  readonly kind: "show";
  /** So many connections are expected since the last behaviour; it is waited for them, and their end. */
  readonly connections: number;
};
