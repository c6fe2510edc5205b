/** What origin and tests agree on. */

/** The origin's ports. Those of the lab's own web servers are taken. */
export const HTTP_PORT = 9080;
export const HTTPS_PORT = 9443;

/** Dependencies of the npm package `all`. */
export const NPM_PACKAGES: readonly string[] = Array.from({ length: 300 }, (_, i) => `part-${i}`);
