/** Metrics as Prometheus' own format says, read by a parser that is not ours. */
import parse from "parse-prometheus-text-format";

/** One line: a series and its value. */
export interface Sample {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** A metric by its name; a histogram by those of its parts (`…_bucket`, `…_sum`, `…_count`). */
export type Exposition = ReadonlyMap<string, readonly Sample[]>;

interface ParsedMetric {
  readonly value?: string;
  readonly labels?: Readonly<Record<string, string>>;
}

/** @throws Error when the text is not well-formed. */
export function readExposition(text: string): Exposition {
  const families: readonly { readonly name: string; readonly type: string }[] = parse(text);
  if (families.length === 0) throw new Error(`no metrics in: ${text}`);
  for (const { name, type } of families) {
    if (type === "UNTYPED") throw new Error(`${name} has no type`);
  }
  // The parser folds histograms and loses their labels; without the type it reads line by line.
  const plain = text.replaceAll(/^# TYPE \S+ histogram$/gm, "");
  const metrics = new Map<string, Sample[]>();
  for (const { name, metrics: series } of parse(plain)) {
    const parsed: readonly ParsedMetric[] = series;
    for (const { labels = {}, value } of parsed) {
      metrics.set(name, [...metrics.get(name) ?? [], { labels, value: Number(value) }]);
    }
  }
  return metrics;
}

/** The value of the one series of `name` with at least these labels; undefined when there is none. */
export function valueOf(
  metrics: Exposition,
  name: string,
  labels: Readonly<Record<string, string>> = {},
): number | undefined {
  return metrics.get(name)?.find((sample) =>
    Object.entries(labels).every(([label, value]) => sample.labels[label] === value)
  )?.value;
}
