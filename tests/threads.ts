/** Threads of this process that hang, for tests of what becomes of them. */
import assert from "node:assert/strict";

/** Stops one thread of ours, as nothing but a tracer can, until its input ends. */
const STOP_THREAD = `
import ctypes, os, sys
PTRACE_ATTACH, PTRACE_DETACH, WALL = 16, 17, 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
thread = int(sys.argv[1])
if libc.ptrace(PTRACE_ATTACH, thread, None, None) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
os.waitpid(thread, WALL)
print("stopped", flush=True)
sys.stdin.read()
libc.ptrace(PTRACE_DETACH, thread, None, None)
`;

/** The workers' threads by number. */
export function workerThreads(): string[] {
  return [...Deno.readDirSync("/proc/self/task")].map(({ name }) => name).filter((thread) =>
    Deno.readTextFileSync(`/proc/self/task/${thread}/comm`).startsWith("worker-")
  );
}

/** A thread that does nothing until it is disposed of. Needs root and `python3`. */
export class HungThread implements AsyncDisposable {
  private constructor(readonly tracer: Deno.ChildProcess) {}

  /** Stops the one worker's thread that is not among `others`. */
  static async stop(others: readonly string[]): Promise<HungThread> {
    const [thread, ...more] = workerThreads().filter((one) => !others.includes(one));
    assert(thread !== undefined && more.length === 0);
    const tracer = new Deno.Command("python3", {
      args: ["-c", STOP_THREAD, thread],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    const { value } = await tracer.stdout.getReader().read();
    assert.match(new TextDecoder().decode(value), /^stopped/);
    return new HungThread(tracer);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.tracer.stdin.close();
    await this.tracer.status;
  }
}
