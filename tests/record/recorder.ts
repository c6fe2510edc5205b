/** Decides something every millisecond or so and says the id of each, until it is killed. */
import { DecisionLog } from "../../lib/decision.ts";
import { History } from "../../lib/record/history.ts";
import { databasePath } from "../../lib/store/database.ts";
import { blockedName } from "./support.ts";

const log = new DecisionLog();
const history = new History({
  path: databasePath(Deno.args[0] ?? ""),
  bounds: { maxBytes: 256 * 1024 ** 2, maxAgeMs: 86_400_000 },
});
log.addSink(history.add);
history.start();
const encoder = new TextEncoder();
for (let i = 0;; i++) {
  const { id } = log.record(blockedName(`h${i}.test`));
  Deno.stdout.writeSync(encoder.encode(`${id}\n`));
  await new Promise((resolve) => setTimeout(resolve, 1));
}
