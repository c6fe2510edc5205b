/** Text from agents, Docker and files on its way to a terminal. */

/**
 * `text` with every character that could steer a terminal or reorder what is read written as
 * `\uXXXX`: controls (CWE-150), bidirectional and other format characters (CVE-2021-42574), line
 * separators, and halves of surrogate pairs. The form is JSON's, so it may be applied to JSON text
 * too, where the characters can only stand inside strings.
 */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu, (char) => {
    let escaped = "";
    for (let i = 0; i < char.length; i++) {
      escaped += `\\u${char.charCodeAt(i).toString(16).padStart(4, "0")}`;
    }
    return escaped;
  });
}
