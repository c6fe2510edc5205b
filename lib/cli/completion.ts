/** `outcall completion …`: scripts that let a shell complete commands and options. */
import { Argument, type CommandUnknownOpts } from "@commander-js/extra-typings";
import { writeOut } from "./output.ts";

/** One command: the words that lead to it, and those that may follow. */
interface Level {
  /** Empty for the program itself. */
  readonly path: readonly string[];
  readonly commands: readonly string[];
  /** Long options, the global ones included. */
  readonly options: readonly string[];
}

const SHELLS = { bash, zsh, fish };

/** Adds the command to `program`; it completes whatever commands the program has when it runs. */
export function addCompletionCommand(program: CommandUnknownOpts): void {
  program.command("completion")
    .description("print a completion script, to be sourced by the shell")
    .addArgument(new Argument("<shell>").choices(["bash", "zsh", "fish"] as const))
    .action((shell) => {
      writeOut(SHELLS[shell](levels(program, [], ["--help"])));
    });
}

function levels(
  command: CommandUnknownOpts,
  path: readonly string[],
  inherited: readonly string[],
): Level[] {
  const own = command.options.flatMap((option) => option.long ?? []);
  const options = [...own, ...inherited];
  return [
    { path, commands: command.commands.map((child) => child.name()), options },
    ...command.commands.flatMap((child) =>
      levels(child, [...path, child.name()], path.length === 0 ? options : inherited)
    ),
  ];
}

/** A shell function body: sets `trail` to the commands on the line, then `words` to what may follow. */
function walk(all: readonly Level[]): string {
  const trail = (level: Level): string => level.path.map((word) => `/${word}`).join("");
  const known = all.slice(1).map((level) => `"${trail(level)}"`).join("|");
  const follow = all.map((level) =>
    `    "${trail(level)}") words="${[...level.commands, ...level.options].join(" ")}" ;;`
  );
  return `    case "$trail/$word" in
      ${known}) trail="$trail/$word" ;;
    esac
  done
  case "$trail" in
${follow.join("\n")}
  esac`;
}

function bash(all: readonly Level[]): string {
  return `_outcall() {
  local trail="" words="" word
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
${walk(all)}
  COMPREPLY=($(compgen -W "$words" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _outcall outcall
`;
}

function zsh(all: readonly Level[]): string {
  return `#compdef outcall
_outcall() {
  local line=("\${(@)words[2,CURRENT-1]}")
  local trail="" words="" word
  for word in "\${line[@]}"; do
${walk(all)}
  compadd -- \${=words} || _files
}
compdef _outcall outcall
`;
}

function fish(all: readonly Level[]): string {
  const lines = all.map(({ path, commands, options }) => {
    const seen = path.map((word) => `__fish_seen_subcommand_from ${word}`);
    const open = commands.length === 0 ? [] : [
      `not __fish_seen_subcommand_from ${commands.join(" ")}`,
    ];
    const condition = [...seen, ...open].join("; and ");
    const files = commands.length === 0 ? "" : " -f"; // where a command must follow, no file can
    const words = [...commands, ...options].join(" ");
    return `complete -c outcall -n '${condition}'${files} -a '${words}'`;
  });
  return `${lines.join("\n")}\n`;
}
