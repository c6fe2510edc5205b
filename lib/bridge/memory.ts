/**
 * Names of bridges that were covered, over a boot. The kernel forgets tables and bridges then, and
 * Docker makes its bridges anew and starts containers on them before it answers anybody. Names that
 * the `--bridge` of now would give out need no memory; those of another one do.
 */
import { dirname } from "node:path";
import { messageOf } from "../errors.ts";
import { logger } from "../log.ts";
import { isInterfaceName } from "./names.ts";

const log = logger("bridge");

/** A list that has grown longer than this is not one of bridges. */
const MAX_NAMES = 1024;

/** The names, in memory and in a file with one a line. */
export class BridgeMemory {
  readonly #path: string | null;
  readonly #names: Set<string>;

  /** @param path Null: nothing is kept. */
  constructor(path: string | null) {
    this.#path = path;
    this.#names = new Set(path === null ? [] : read(path));
  }

  /** All names. */
  get names(): readonly string[] {
    return [...this.#names];
  }

  has(name: string): boolean {
    return this.#names.has(name);
  }

  /** Adds names, and keeps them. Does not throw: covering them now is what matters most. */
  add(names: readonly string[]): void {
    const before = this.#names.size;
    for (const name of names) {
      if (isInterfaceName(name) && this.#names.size < MAX_NAMES) this.#names.add(name);
    }
    if (this.#names.size > before) this.#write();
  }

  /** Takes out names whose networks are gone. Does not throw. */
  remove(names: readonly string[]): void {
    if (names.filter((name) => this.#names.delete(name)).length > 0) this.#write();
  }

  #write(): void {
    if (this.#path === null) return;
    try {
      Deno.mkdirSync(dirname(this.#path), { recursive: true, mode: 0o700 });
      const draft = `${this.#path}.new`;
      Deno.writeTextFileSync(draft, `${this.names.join("\n")}\n`, { mode: 0o600 });
      Deno.renameSync(draft, this.#path); // one or the other, whenever the machine stops
    } catch (error) {
      log.error("{path}: covered bridges cannot be remembered for a boot: {reason}", {
        path: this.#path,
        reason: messageOf(error),
      });
    }
  }
}

function read(path: string): readonly string[] {
  try {
    return Deno.readTextFileSync(path).split("\n").filter(isInterfaceName).slice(0, MAX_NAMES);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) {
      log.error("{path}: bridges of earlier runs are not known: {reason}", {
        path,
        reason: messageOf(error),
      });
    }
    return [];
  }
}
