/**
 * The language as the CEL library is told it. Apart from the vocabulary, because what judges needs no
 * library, and each thread that judges would load one.
 */
import { Environment } from "@marcbachmann/cel-js";
import { NAMESPACES } from "./language.ts";
import { LIMITS } from "./limits.ts";

/** The environment conditions are parsed and checked in. Evaluation is not the library's. */
export function celEnvironment(): Environment {
  const environment = new Environment({
    limits: {
      maxAstNodes: LIMITS.expressionNodes,
      maxListElements: LIMITS.listItems,
      maxMapEntries: LIMITS.listItems,
    },
  });
  for (const [name, schema] of Object.entries(NAMESPACES)) {
    environment.registerVariable(name, { schema: { ...schema } });
  }
  const evaluatedElsewhere = (): never => {
    throw new Error("conditions are evaluated by lib/rules/evaluate.ts");
  };
  for (const helper of ["under", "inCidr"]) {
    for (const argument of ["string", "list<string>"]) {
      environment.registerFunction(`string.${helper}(${argument}): bool`, evaluatedElsewhere);
    }
  }
  return environment;
}
