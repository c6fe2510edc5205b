/** Which rules admit a port by their condition (decision D25). */
import { compileCondition } from "./evaluate.ts";
import { type Expr, mentions } from "./ir.ts";
import { CAN_BE_TRUE, type Evaluation, TRUE } from "./outcome.ts";

/**
 * Whether a comparison of `network.port` is among the reasons why a condition counts. Asked only for a
 * condition that does count, with the facts as they are and with the same facts but the port.
 *
 * `http.host == "a" || (http.host == "b" && network.port == 22)` counts for every port of a, and no
 * comparison is a reason for that: it opens port 22 of b, and of a nothing but the default.
 */
export type PortTest = (evaluation: Evaluation, withoutPort: Evaluation) => boolean;

/** Compiles the test for one condition. */
export function compilePortTest(expr: Expr): PortTest {
  if (!mentions(expr, "network.port")) return () => false;
  switch (expr.op) {
    case "and": {
      // All items count, or the whole would not.
      const tests = expr.items.map(compilePortTest);
      return (evaluation, withoutPort) => tests.some((test) => test(evaluation, withoutPort));
    }
    case "or": {
      const items = expr.items.map((item) => ({
        condition: compileCondition(item),
        test: compilePortTest(item),
      }));
      return (evaluation, withoutPort) =>
        items.some(({ condition, test }) =>
          (condition(evaluation) & CAN_BE_TRUE) !== 0 && test(evaluation, withoutPort)
        );
    }
    default: {
      const condition = compileCondition(expr);
      return (_evaluation, withoutPort) => condition(withoutPort) !== TRUE;
    }
  }
}
