/** How the kernel treats the calling thread. */

/** proc_pid_stat(5): the 19th field; the second may contain blanks. */
export function nicenessOf(thread: string): number {
  const stat = Deno.readTextFileSync(`/proc/self/task/${thread}/stat`);
  return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[16]);
}

/** Number of the calling thread. */
export function thisThread(): string {
  const link = Deno.readLinkSync("/proc/thread-self");
  return link.slice(link.lastIndexOf("/") + 1);
}
