import manifest from "../deno.json" with { type: "json" };

/** The product's version, as written in deno.json. */
export const VERSION: string = manifest.version;
