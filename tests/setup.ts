/**
 * What the demo, the tests and the benchmarks need from the machine, and how a fresh Debian or
 * Ubuntu gets it: with apt-get, without questions, only what is missing. No service is started and
 * no interface of the real network is touched; Docker Engine runs in the lab's own namespaces only.
 */
import { fileURLToPath } from "node:url";
import { hasTool } from "./lab/requirements.ts";

/** What is being set up. The demo needs less than the tests, the benchmarks need the peers. */
export type Purpose = "demo" | "test" | "bench";

/** A program, and the Debian packages that may bring it: the first that exists is taken. */
interface Need {
  readonly tool: string;
  readonly packages: readonly string[];
}

function need(tool: string, ...packages: readonly string[]): Need {
  return { tool, packages };
}

/** Clients as the demo runs them and what builds the lab; the rest is part of every Debian. */
const DEMO: readonly Need[] = [
  need("nft", "nftables"),
  need("ip", "iproute2"),
  need("curl", "curl"),
  need("dig", "bind9-dnsutils", "dnsutils"),
  need("nc.openbsd", "netcat-openbsd"), // another nc may be there, with other flags
  need("ping", "iputils-ping"),
  need("update-ca-certificates", "ca-certificates"),
  need("nsenter", "util-linux"),
  need("sysctl", "procps"),
];

const TEST: readonly Need[] = [
  ...DEMO,
  need("dockerd", "docker.io"),
  need("docker", "docker-cli", "docker.io"), // a package of its own since Debian 13
  need("iptables", "iptables"),
  need("python3", "python3"),
  need("openssl", "openssl"),
  need("jq", "jq"),
  need("wget", "wget"),
  need("git", "git"),
  need("pip3", "python3-pip"),
  need("musl-gcc", "musl-tools"),
  need("busybox", "busybox-static", "busybox"),
  need("setpriv", "util-linux"),
  need("script", "bsdutils"),
];

const NEEDS: Readonly<Record<Purpose, readonly Need[]>> = {
  demo: DEMO,
  test: TEST,
  bench: [
    ...DEMO,
    need("dnsperf", "dnsperf"),
    need("wrk", "wrk"),
    need("unbound", "unbound"),
    need("dnsmasq", "dnsmasq-base"),
    need("squid", "squid-openssl", "squid"),
    need("tinyproxy", "tinyproxy-bin", "tinyproxy"),
  ],
};

/**
 * apt-get with everything that could ask or wait for ever switched off. Debian starts what it
 * installs unless policy-rc.d forbids it; one that is there already is the administrator's.
 */
const INSTALL = `
set -e
if [ ! -e /usr/sbin/policy-rc.d ]; then
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT INT TERM
  printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d
  chmod 755 /usr/sbin/policy-rc.d
fi
apt-get -y -q --no-install-recommends -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 \
  -o Acquire::Retries=3 -o Dpkg::Options::=--force-confold install "$@"
`;

/** Runs a program; what it prints is shown as progress, or not at all. */
async function succeeds(
  program: string,
  args: readonly string[],
  output: "progress" | "hidden",
): Promise<boolean> {
  const stdio = output === "progress" ? "inherit" : "null";
  const { success } = await new Deno.Command("sh", {
    args: ["-c", 'exec "$@" >&2', "sh", program, ...args],
    env: { DEBIAN_FRONTEND: "noninteractive", NEEDRESTART_MODE: "a" },
    stdin: "null",
    stdout: stdio,
    stderr: stdio,
  }).spawn().status;
  return success;
}

/** The distribution's name for people. */
async function distribution(): Promise<string> {
  const release = await Deno.readTextFile("/etc/os-release").catch(() => "");
  return /^PRETTY_NAME="?([^"\n]*)/m.exec(release)?.[1] ?? "this distribution";
}

async function firstKnown(packages: readonly string[]): Promise<string | undefined> {
  for (const name of packages) {
    if (await succeeds("apt-cache", ["show", "--quiet=2", name], "hidden")) return name;
  }
  return packages[0];
}

async function installMissing(purpose: Purpose): Promise<string | null> {
  const missing = NEEDS[purpose].filter(({ tool }) => !hasTool(tool));
  if (missing.length === 0) return null;
  const tools = missing.map(({ tool }) => tool).join(", ");
  if (!hasTool("apt-get")) {
    const packages = new Set(missing.map((one) => one.packages.at(-1)));
    return `${await distribution()} has no apt-get, and these programs are missing: ${tools}.\n` +
      `Install them by hand (on Debian they are in: ${[...packages].join(" ")}), then run again.`;
  }
  console.error(`Set-up: ${tools} missing; asking apt-get.`);
  if (!await succeeds("apt-get", ["-q", "-o", "Acquire::Retries=3", "update"], "progress")) {
    // Lists from before may do; whether they did shows below.
    console.error("Set-up: apt-get update failed, trying with the package lists there are.");
  }
  const packages = new Set<string>();
  for (const one of missing) packages.add(await firstKnown(one.packages) ?? one.tool);
  console.error(`Set-up: installing ${[...packages].join(" ")}.`);
  const installed = await succeeds("sh", ["-c", INSTALL, "sh", ...packages], "progress");
  const absent = missing.filter(({ tool }) => !hasTool(tool)).map(({ tool }) => tool);
  if (installed && absent.length === 0) return null;
  return `apt-get could not install ${absent.join(", ") || [...packages].join(", ")}.\n` +
    "Its messages are above; mend what they name (network, package sources), then run again.";
}

/** Every module of the product and of the lab's own processes, so that the lab needs no downloads. */
async function fetchDependencies(): Promise<string | null> {
  const root = fileURLToPath(new URL("../", import.meta.url));
  const modules = ["main.ts", "cli.ts", "shim.ts", "tests/lab/internet/main.ts"];
  const collect = async (folder: string): Promise<void> => {
    for await (const entry of Deno.readDir(`${root}${folder}`)) {
      const path = `${folder}/${entry.name}`;
      if (entry.isDirectory) await collect(path);
      else if (/\.tsx?$/.test(entry.name)) modules.push(path);
    }
  };
  await collect("lib"); // workers are reached by URL, so no entry point imports them
  const { success } = await new Deno.Command(Deno.execPath(), {
    args: ["cache", "--quiet", ...modules],
    cwd: root,
    stdin: "null",
  }).spawn().status;
  return success ? null : "The npm packages could not be fetched; the message is above.";
}

/**
 * Makes the machine ready. Says on standard error what it does, and nothing if all is there.
 * @returns null, or what is missing and what to do about it (for people).
 */
export async function setUp(purpose: Purpose): Promise<string | null> {
  if (Deno.build.os !== "linux") {
    return `Outcall runs on Linux only (network namespaces, nftables); this is ${Deno.build.os}.`;
  }
  if (Deno.uid() !== 0) {
    return "This needs root: it builds network namespaces. Run the same command with sudo.";
  }
  return await installMissing(purpose) ?? await fetchDependencies();
}
