/** Replies that arrive line by line, one JSON value each, for work that takes long. */

/** The media type, in `Accept` and `Content-Type`. */
export const NDJSON = "application/x-ndjson";
