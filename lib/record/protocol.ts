/** What the main isolate and the two history threads tell each other. */
import type { Bounds, DecisionStats, Extent, HistoryQuery, Row, StatsQuery } from "./table.ts";

/** To the thread that writes; each is answered. */
export type ToWriter =
  /** The first message. */
  | { readonly kind: "open"; readonly path: string; readonly bounds: Bounds }
  | { readonly kind: "write"; readonly rows: readonly Row[] }
  /** The last message. */
  | { readonly kind: "close" };

/** From the thread that writes. */
export type FromWriter =
  | { readonly ok: true; readonly extent: Extent | null }
  | { readonly ok: false; readonly error: string };

/** What the thread that reads is asked. */
export type Question =
  | { readonly kind: "read"; readonly query: HistoryQuery }
  | { readonly kind: "stats"; readonly query: StatsQuery };

/** To the thread that reads. */
export interface ToReader {
  readonly ticket: number;
  readonly path: string;
  readonly question: Question;
}

/** Answer to a {@linkcode Question}. */
export type ReaderAnswer =
  | { readonly kind: "read"; readonly rows: readonly Row[] }
  | { readonly kind: "stats"; readonly stats: DecisionStats };

/** From the thread that reads. */
export type FromReader =
  & { readonly ticket: number }
  & ({ readonly ok: true; readonly answer: ReaderAnswer } | {
    readonly ok: false;
    readonly error: string;
  });
