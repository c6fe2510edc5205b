/** What the command lines of `outcalld` and `outcall` share; what is wrong is a usage error. */
import { InvalidArgumentError } from "@commander-js/extra-typings";

/** The host API socket of a daemon that was not told another one. */
export const DEFAULT_SOCKET = "/run/outcall/host.sock";

/** The rules directory of a daemon that was not told another one. */
export const DEFAULT_RULES_DIR = "/etc/outcall/rules.d";

/** A reader of whole numbers from `least` to `most`. */
export function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^[0-9]+$/.test(text) || value < least || value > most) {
      throw new InvalidArgumentError(`It must be a whole number from ${least} to ${most}.`);
    }
    return value;
  };
}
