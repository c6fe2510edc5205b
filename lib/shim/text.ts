/** What the shim says about itself. */

/** `--help` */
export const USAGE = `Usage: outcall-agent <command>

Ask, and carry out if allowed:
  exec <program> [args…]            run a program
  bash|sh|shell <program> [args…]   run a program, asked about as a shell command
  <program> [args…]                 the same as exec

Ask only:
  check network <url> [method]      may I reach it?   (also: fetch, http, https)
  check tool <program> [args…]      may I run it?
  check shell <program> [args…]
  check file <path> [write]         may I read or write it?   (also: file, read, write)

Propose rules to the operator:
  request <url> [--method M] [--reason R] [--for 1h] [--wait]
  request --file <rules.yaml> [--reason R] [--for 1h] [--wait]
  status <id> [--wait]              what became of a request

  whoami                            who the daemon says you are, and your limits
  help agents                       how to work behind this firewall, for agents

Exit codes: 0 allowed, 1 refused, 2 wrong usage, 5 no verdict from outcalld; a program's own code.
Environment: OUTCALL_TIMEOUT_SECS, 1 to 300 (default 30).
`;

/** `help agents` */
export const GUIDE = `You work behind outcall, a firewall that denies everything no rule allows.

How a refusal looks
  - a name does not resolve (NXDOMAIN), though it exists
  - the proxy answers 403, with headers X-Outcall-Block-Reason and X-Outcall-Decision, and with how to
    ask; https clients only say that the proxy's CONNECT failed with 403
  - a connection that does not use the proxy just times out
A refusal is the policy, not a fault: asking the same again changes nothing. Do not retry, and do not
look for a way around; every attempt is recorded.

Before you reach out
  outcall-agent check network https://api.example.com     exit 0: it will work; 1: it will not

When you need something that is refused, ask the operator, once:
  outcall-agent request https://api.example.com --reason "what you need it for" --for 1h --wait
Of https only host and port can be opened; of plain http also one path and method: name them.
It prints a request id, waits for the answer, and ends with 0 when the access works, 1 when the
operator said no. Without --wait go on with other work and look later:
  outcall-agent status rr-0123456789ab
An access ends when its time is over; ask again then. Ask for as little as you need.

Exit code 5 means that there is no verdict: the firewall's daemon did not answer, or you asked too
often. Nothing was run. If it stays so, tell your operator.
`;
