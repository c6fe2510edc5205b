/**
 * Patterns of `matches()`: RE2 syntax, compiled at load to a table with one look-up for each character.
 *
 * A backtracking engine takes exponential time on hostile text, and one that simulates states takes
 * (pattern × text): with 16 KiB of path chosen by the agent both stall the daemon. So the whole
 * automaton is built when the rules are loaded, and a pattern whose automaton is too large is refused
 * there. RE2JS parses the syntax and lowers it to instructions; nothing of it runs afterwards.
 */
import { RE2JS } from "re2js";
import { messageOf } from "../errors.ts";

/** A compiled pattern. */
export interface Pattern {
  /** Whether the pattern is found anywhere in `text`. Time is linear in the text alone. */
  test(text: string): boolean;
}

/** Thrown for a pattern that cannot be used; message and hint are for the operator. */
export class PatternError extends Error {
  constructor(message: string, readonly hint: string) {
    super(message);
  }
}

const SYNTAX_HINT = "Patterns have RE2 syntax: no look-around and no back-references.";
const SIZE_HINT = "Repeat less, or compare with ==, in [...] or startsWith().";

/** Instructions of RE2JS (as in RE2 and Go's regexp/syntax). */
const ALT = 1;
const ALT_MATCH = 2;
const CAPTURE = 3;
const EMPTY_WIDTH = 4;
const MATCH = 6;
const NOP = 7;
const RUNE = 8;
const RUNE1 = 9;
const RUNE_ANY = 10;
const RUNE_ANY_NOT_NL = 11;

const FOLD_CASE = 1;

/** Conditions of EMPTY_WIDTH. */
const BEGIN_LINE = 1;
const END_LINE = 2;
const BEGIN_TEXT = 4;
const END_TEXT = 8;
const WORD_BOUNDARY = 16;
const NO_WORD_BOUNDARY = 32;

interface Instruction {
  readonly op: number;
  readonly out: number;
  readonly arg: number;
  readonly runes: ArrayLike<number>;
}

interface Program {
  readonly inst: readonly Instruction[];
  readonly start: number;
}

/** What stands beside a position, as far as `^ $ \b` can tell. */
const EDGE = 0;
const NEWLINE = 1;
const WORD = 2;
const OTHER = 3;
type Kind = typeof EDGE | typeof NEWLINE | typeof WORD | typeof OTHER;

const MAX_RUNE = 0x10ffff;
const LF = 10;

/** Length of a pattern, in UTF-16 units. */
const MAX_PATTERN_LENGTH = 1024;
/** Steps of building one table: some ten milliseconds. */
const MAX_WORK = 200_000;

/** States with a fixed meaning. */
const ACCEPT = 0;
const FIRST_STATE = 1;

function parse(text: string): Program {
  if (text.length > MAX_PATTERN_LENGTH) {
    throw new PatternError(`it is longer than ${MAX_PATTERN_LENGTH} characters`, SIZE_HINT);
  }
  try {
    const program: Program = RE2JS.compile(text).re2().prog;
    return program;
  } catch (thrown) {
    const reason = messageOf(thrown).replace(/^error parsing regexp: /, "");
    throw new PatternError(reason, SYNTAX_HINT);
  }
}

function isWord(rune: number): boolean {
  return (rune >= 48 && rune <= 57) || (rune >= 65 && rune <= 90) || rune === 95 ||
    (rune >= 97 && rune <= 122);
}

/** The runes that an instruction takes, as inclusive ranges. */
function rangesOf(instruction: Instruction): [number, number][] {
  const { op, arg, runes } = instruction;
  if (op === RUNE_ANY) return [[0, MAX_RUNE]];
  if (op === RUNE_ANY_NOT_NL) return [[0, LF - 1], [LF + 1, MAX_RUNE]];
  const first = runes[0] ?? -1;
  if (runes.length === 1) return (arg & FOLD_CASE) === 0 ? [[first, first]] : foldedRanges(first);
  const ranges: [number, number][] = [];
  for (let i = 0; i + 1 < runes.length; i += 2) ranges.push([runes[i] ?? 0, runes[i + 1] ?? 0]);
  return ranges;
}

/** Unicode folds two ASCII letters with a letter outside ASCII: the Kelvin sign and the long s. */
const EXTRA_FOLDS: Readonly<Record<string, number>> = { k: 0x212a, s: 0x17f };

function foldedRanges(rune: number): [number, number][] {
  const char = String.fromCodePoint(rune);
  const lower = char.toLowerCase();
  const upper = char.toUpperCase();
  if (lower === upper) return [[rune, rune]];
  if (!/^[a-z]$/.test(lower)) {
    throw new PatternError(`'${char}' cannot be case-insensitive`, "Write both letters: [éÉ].");
  }
  const runes = [lower.charCodeAt(0), upper.charCodeAt(0)];
  const extra = EXTRA_FOLDS[lower];
  if (extra !== undefined) runes.push(extra);
  return runes.map((each) => [each, each]);
}

/**
 * Steps that the patterns of a whole rule set may take to build, so that a file full of patterns which
 * are each just about acceptable cannot stall the daemon that checks it.
 */
export class PatternBudget {
  #steps = 2_000_000;

  /** Every rule brings its share. */
  addRules(count: number): void {
    this.#steps += 4000 * count;
  }

  /** @throws PatternError when the budget is used up. */
  spend(steps: number): void {
    this.#steps -= steps;
    if (this.#steps < 0) {
      throw new PatternError("the patterns of all rules together are too complex", SIZE_HINT);
    }
  }
}

/** Builds the table. */
class Builder {
  readonly #program: Program;
  readonly #usesWords: boolean;
  readonly #usesLines: boolean;
  /** First rune of each interval in which all instructions agree. */
  readonly #bounds: number[];
  /** Class of each interval; intervals that no instruction tells apart share one. */
  readonly #classOfInterval: number[] = [];
  /** For each class: an instruction takes it. */
  readonly #takes: (readonly boolean[])[] = [];
  readonly #kindOfClass: Kind[] = [];
  readonly #states = new Map<string, number>();
  readonly #pending: { readonly pcs: readonly number[]; readonly before: Kind }[] = [];
  readonly #budget: PatternBudget;
  #work = 0;

  constructor(program: Program, budget: PatternBudget) {
    this.#program = program;
    this.#budget = budget;
    const emptyWidths = program.inst.filter(({ op }) => op === EMPTY_WIDTH);
    const uses = (mask: number): boolean => emptyWidths.some(({ arg }) => (arg & mask) !== 0);
    this.#usesWords = uses(WORD_BOUNDARY | NO_WORD_BOUNDARY);
    this.#usesLines = uses(BEGIN_LINE | END_LINE);
    this.#bounds = this.#findBounds();
    this.#classify();
  }

  #findBounds(): number[] {
    const bounds = new Set([0]);
    const split = (from: number, to: number): void => {
      bounds.add(from);
      if (to < MAX_RUNE) bounds.add(to + 1);
    };
    for (const instruction of this.#program.inst) {
      if (instruction.op < RUNE) continue;
      if (instruction.op > RUNE_ANY_NOT_NL) {
        throw new PatternError("look-behind is not supported", SYNTAX_HINT);
      }
      for (const [from, to] of rangesOf(instruction)) split(from, to);
    }
    if (this.#usesLines) split(LF, LF);
    if (this.#usesWords) {
      for (const range of ["09", "AZ", "__", "az"]) {
        split(range.charCodeAt(0), range.charCodeAt(1));
      }
    }
    return [...bounds].sort((a, b) => a - b);
  }

  #kind(rune: number): Kind {
    if (this.#usesLines && rune === LF) return NEWLINE;
    return this.#usesWords && isWord(rune) ? WORD : OTHER;
  }

  #classify(): void {
    const ranges = this.#program.inst.map((each) =>
      each.op >= RUNE && each.op <= RUNE_ANY_NOT_NL ? rangesOf(each) : []
    );
    const classes = new Map<string, number>();
    for (const rune of this.#bounds) {
      const takes = ranges.map((each) => each.some(([from, to]) => from <= rune && rune <= to));
      this.#spend(takes.length);
      const kind = this.#kind(rune);
      const key = `${kind}${takes.map(Number).join("")}`;
      let index = classes.get(key);
      if (index === undefined) {
        index = classes.size;
        classes.set(key, index);
        this.#takes.push(takes);
        this.#kindOfClass.push(kind);
      }
      this.#classOfInterval.push(index);
    }
  }

  #spend(steps: number): void {
    this.#work += steps;
    this.#budget.spend(steps);
    if (this.#work > MAX_WORK) {
      throw new PatternError(
        "repetitions such as {n,m} and (a|b)* multiply to too much",
        SIZE_HINT,
      );
    }
  }

  build(): Pattern {
    this.#state([], EDGE);
    const rows: number[][] = [];
    const acceptsAtEnd: boolean[] = [];
    // States are found while their predecessors are built.
    for (let i = 0; i < this.#pending.length; i++) {
      const { pcs, before } = this.#pending[i] ?? { pcs: [], before: EDGE };
      rows.push(this.#row(pcs, before));
      acceptsAtEnd.push(this.#closure(pcs, before, EDGE).accepts);
      this.#spend(this.#takes.length);
    }
    return new Table(this.#bounds, this.#classOfInterval, rows, acceptsAtEnd);
  }

  /** The state's number. */
  #state(pcs: readonly number[], before: Kind): number {
    const key = `${before}:${pcs.join()}`;
    let state = this.#states.get(key);
    if (state === undefined) {
      state = FIRST_STATE + this.#states.size;
      this.#states.set(key, state);
      this.#pending.push({ pcs, before });
    }
    return state;
  }

  #row(pcs: readonly number[], before: Kind): number[] {
    const closures = new Map<Kind, { accepts: boolean; pcs: readonly number[] }>();
    return this.#takes.map((takes, index) => {
      const after = this.#kindOfClass[index] ?? OTHER;
      let closure = closures.get(after);
      if (closure === undefined) {
        closure = this.#closure(pcs, before, after);
        closures.set(after, closure);
      }
      if (closure.accepts) return ACCEPT;
      this.#spend(closure.pcs.length);
      const next = closure.pcs
        .filter((pc) => takes[pc] === true)
        .map((pc) => this.#program.inst[pc]?.out ?? 0);
      return this.#state([...new Set(next)].sort((a, b) => a - b), after);
    });
  }

  /** Everything reachable without taking a character, between two kinds of characters. */
  #closure(
    pcs: readonly number[],
    before: Kind,
    after: Kind,
  ): { accepts: boolean; pcs: readonly number[] } {
    const holds = (before === EDGE ? BEGIN_TEXT | BEGIN_LINE : 0) |
      (before === NEWLINE ? BEGIN_LINE : 0) |
      (after === EDGE ? END_TEXT | END_LINE : 0) |
      (after === NEWLINE ? END_LINE : 0) |
      ((before === WORD) !== (after === WORD) ? WORD_BOUNDARY : NO_WORD_BOUNDARY);
    const seen = new Set<number>();
    // The pattern may begin anywhere: its start is always among the instructions.
    const stack = [...pcs, this.#program.start];
    let accepts = false;
    for (let pc = stack.pop(); pc !== undefined; pc = stack.pop()) {
      if (seen.has(pc)) continue;
      seen.add(pc);
      const instruction = this.#program.inst[pc];
      if (instruction === undefined) continue;
      const { op, out, arg } = instruction;
      if (op === MATCH) accepts = true;
      else if (op === ALT || op === ALT_MATCH) stack.push(out, arg);
      else if (op === CAPTURE || op === NOP) stack.push(out);
      else if (op === EMPTY_WIDTH && (arg & ~holds) === 0) stack.push(out);
    }
    this.#spend(seen.size);
    return { accepts, pcs: [...seen].filter((pc) => this.#takesRunes(pc)) };
  }

  #takesRunes(pc: number): boolean {
    const op = this.#program.inst[pc]?.op ?? 0;
    return op === RUNE || op === RUNE1 || op === RUNE_ANY || op === RUNE_ANY_NOT_NL;
  }
}

const ASCII = 128;

/** A deterministic automaton over character classes. */
class Table implements Pattern {
  readonly #classes: number;
  readonly #asciiClass = new Uint16Array(ASCII);
  readonly #next: Uint32Array;
  readonly #acceptsAtEnd: Uint8Array;
  /** Nothing that follows can change the answer. */
  readonly #isDead: Uint8Array;

  constructor(
    readonly bounds: readonly number[],
    readonly classOfInterval: readonly number[],
    rows: readonly (readonly number[])[],
    acceptsAtEnd: readonly boolean[],
  ) {
    this.#classes = rows[0]?.length ?? 0;
    for (let rune = 0; rune < ASCII; rune++) this.#asciiClass[rune] = this.#search(rune);
    // ACCEPT is row 0; it is never left.
    this.#next = Uint32Array.from([
      ...new Array<number>(this.#classes).fill(ACCEPT),
      ...rows.flat(),
    ]);
    this.#acceptsAtEnd = Uint8Array.from([1, ...acceptsAtEnd.map(Number)]);
    this.#isDead = Uint8Array.from([
      1,
      ...rows.map((row, i) =>
        Number(acceptsAtEnd[i] === false && row.every((state) => state === i + FIRST_STATE))
      ),
    ]);
  }

  /** Class of a rune, by bisection. */
  #search(rune: number): number {
    let low = 0;
    let high = this.bounds.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if ((this.bounds[middle] ?? 0) <= rune) low = middle;
      else high = middle;
    }
    return this.classOfInterval[low] ?? 0;
  }

  test(text: string): boolean {
    let state = FIRST_STATE;
    for (let i = 0; i < text.length; i++) {
      let rune = text.charCodeAt(i);
      let index: number;
      if (rune < ASCII) {
        index = this.#asciiClass[rune] ?? 0;
      } else {
        rune = text.codePointAt(i) ?? 0;
        if (rune > 0xffff) i++;
        index = this.#search(rune);
      }
      state = this.#next[state * this.#classes + index] ?? ACCEPT;
      if (this.#isDead[state] === 1) return state === ACCEPT;
    }
    return this.#acceptsAtEnd[state] === 1;
  }
}

/** Compiled patterns by text: rule sets repeat them. */
const cache = new Map<string, Pattern>();
const MAX_CACHED = 10_000;

/**
 * Compiles a pattern.
 * @param budget Shared by the patterns of a set that is being checked.
 * @throws PatternError when its syntax is wrong or its automaton too large.
 */
export function compilePattern(text: string, budget = new PatternBudget()): Pattern {
  const known = cache.get(text);
  if (known !== undefined) return known;
  const pattern = new Builder(parse(text), budget).build();
  if (cache.size >= MAX_CACHED) cache.clear();
  cache.set(text, pattern);
  return pattern;
}
