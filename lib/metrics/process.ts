/** The daemon's own process in numbers, under the names that Prometheus has for them everywhere. */
import process from "node:process";
import { Counter, Gauge, type Registry } from "prom-client";

/** Adds the process's metrics to `registry`. All threads count together. */
export function processMetrics(registry: Registry): void {
  const registers = [registry];
  const startedAt = Date.now() / 1000 - process.uptime();
  new Gauge({
    name: "process_start_time_seconds",
    help: "When the daemon started.",
    registers,
    collect(): void {
      this.set(startedAt);
    },
  });
  new Gauge({
    name: "process_resident_memory_bytes",
    help: "Memory of the daemon that is in RAM.",
    registers,
    collect(): void {
      this.set(Deno.memoryUsage().rss);
    },
  });
  new Gauge({
    name: "process_open_fds",
    help: "Open file descriptors of the daemon.",
    registers,
    collect(): void {
      this.set([...Deno.readDirSync("/proc/self/fd")].length);
    },
  });
  new Counter({
    name: "process_cpu_seconds_total",
    help: "Time that the daemon's threads ran.",
    registers,
    collect(): void {
      const { user, system } = process.cpuUsage();
      this.reset();
      this.inc((user + system) / 1e6);
    },
  });
}
