/** How far a pull has come: Docker tells it layer by layer, people want it in one number. Pure. */
import { z } from "zod";
import type { PullProgress } from "../api/services.ts";

/** A line of Docker's answer to a pull (`POST /images/create`); every part of it may be absent. */
const pullLine = z.object({
  status: z.string().default(""),
  id: z.string().default(""),
  progress: z.string().default(""),
  progressDetail: z.object({
    current: z.number().nonnegative().optional(),
    total: z.number().positive().optional(),
  }).default({}),
});

interface Layer {
  bytes: number;
  /** 0 until Docker knows. */
  total: number;
  isDone: boolean;
}

/** The states of a layer in which nothing of it is left to be downloaded. */
const DOWNLOADED = ["Verifying Checksum", "Download complete", "Extracting", "Pull complete"];
const DONE = ["Pull complete", "Already exists"];
/** `Pulling from library/python` has the tag where layers have their id. */
const NO_LAYER = /^Pulling from /;

/** Adds up one pull. */
export class PullTally {
  readonly #layers = new Map<string, Layer>();

  /** Takes in one line; what is no line of Docker's changes nothing. */
  take(line: unknown): PullProgress {
    const parsed = pullLine.safeParse(line);
    const { status, id, progress, progressDetail } = parsed.data ?? pullLine.parse({});
    if (id !== "" && !NO_LAYER.test(status)) this.#layer(id, status, progressDetail);
    const layers = [...this.#layers.values()];
    return {
      text: [id === "" ? "" : `${id}:`, status, progress].filter(Boolean).join(" "),
      layers: layers.length,
      layers_done: layers.filter(({ isDone }) => isDone).length,
      bytes: layers.reduce((sum, { bytes }) => sum + bytes, 0),
      bytes_total: layers.reduce((sum, { total }) => sum + total, 0),
    };
  }

  #layer(
    id: string,
    status: string,
    { current, total }: z.infer<typeof pullLine>["progressDetail"],
  ): void {
    const layer = this.#layers.get(id) ?? { bytes: 0, total: 0, isDone: false };
    this.#layers.set(id, layer);
    if (status === "Downloading") {
      layer.total = total ?? layer.total;
      layer.bytes = Math.min(current ?? 0, layer.total);
    } else if (DOWNLOADED.includes(status)) {
      layer.bytes = layer.total;
    }
    layer.isDone = DONE.includes(status);
  }
}
