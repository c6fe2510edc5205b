/**
 * What the kernel's part costs: packets of a direct grant with one and with two hundred agents
 * attached, how long a grant takes to be in force, and a port to be pinned.
 */
import { fileURLToPath } from "node:url";
import { DEFAULT_PLACE } from "../lab/agent.ts";
import { EXAMPLE_ADDRESS } from "../lab/internet/world.ts";
import { Lab } from "../lab/lab.ts";
import { connect, Machine } from "../lab/machine.ts";
import { denoCommand } from "../lab/product.ts";
import { setUp } from "../setup.ts";
import { compare, type Report, type Suite } from "./result.ts";

const CROWD = fileURLToPath(new URL("crowd.py", import.meta.url));
const SENDER = new URL("../bridge/send.ts", import.meta.url);
/** With the one that measures they are two hundred. */
const CROWD_SIZE = 199;
const FIRST_OF_CROWD = 20;
const PORT = 9999;
const FLOOD_SECS = 3;
/** Floods with few and with many agents cannot be interleaved, so the best of some counts. */
const FLOODS = 3;
const GRANTS = 20;

const RULES = `version: "1"
rules:
  - id: granted
    condition: |
      network.hostname == "example.com" && network.protocol == "udp" && network.port == ${PORT}
    action: allow
    egress: { mode: direct_ip }
  - id: plain
    condition: 'http.host == "example.org"'
    action: allow
`;

/** Interfaces that share a subnet answer for themselves alone; and what others send is counted. */
const PREPARE_CROWD = `
sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
nft -f - << 'EOF'
table inet seen {
  chain arrived {
    type filter hook prerouting priority -400; policy accept;
    ip saddr ${DEFAULT_PLACE.address.split("/")[0]} counter
  }
}
EOF`;

function median(figures: readonly number[]): number {
  return figures.toSorted((a, b) => a - b)[Math.floor(figures.length / 2)] ?? NaN;
}

function numbers(text: string): number[] {
  return text.trim().split("\n").map(Number);
}

/** Datagrams a second that `machine` sends to an address of the internet, all the way in one go. */
async function floodRate(machine: Machine): Promise<number> {
  const rates: number[] = [];
  for (let turn = 0; turn < FLOODS; turn++) {
    const flood = machine.spawn([...denoCommand(SENDER), "flood", EXAMPLE_ADDRESS, `${PORT}`]);
    await flood.line("stdout", (line) => line === "flooding");
    const startMs = performance.now();
    await new Promise((resolve) => setTimeout(resolve, FLOOD_SECS * 1000));
    await flood.tell("end");
    const sent = Number(await flood.line("stdout", (line) => line !== "flooding"));
    rates.push(sent / (performance.now() - startMs) * 1000);
  }
  return Math.max(...rates);
}

/** The kernel's part, and what is around it. */
export const kernelSuite: Suite = async (
  report: Report,
  progress: (line: string) => void,
): Promise<void> => {
  const missing = await setUp("test");
  if (missing !== null) throw new Error(missing);
  const result = (parts: Omit<Parameters<typeof compare>[0], "suite">): void =>
    report(compare({ suite: "kernel", ...parts }));
  await using lab = await Lab.create({ docker: false });
  await using crowd = await Machine.start("crowd");
  await crowd.must(["bash", "-c", PREPARE_CROWD]);
  await lab.startDaemon({
    rules: { "bench.yaml": RULES },
    flags: ["--dns-query-rate", "100000/1"],
    logFile: "/run/lab/outcalld.log",
  });
  const agent = await lab.agent();
  const { gateway } = DEFAULT_PLACE;
  const lookups = async (name: string, count: number): Promise<number[]> =>
    numbers(await agent.must(["python3", CROWD, "time", gateway, name, `${count}`]));

  progress("packets of a grant, one agent attached");
  await lookups("example.com", 1);
  const alone = await floodRate(agent);
  const bystander = await floodRate(lab.unfiltered);
  result({
    ...{ case: "datagrams of a grant, bridged and masqueraded", unit: "packets/s" },
    ...{ better: "higher", ours: alone, peers: { "a bystander's, routed": bystander } },
  });

  progress("look-ups that open something");
  await lookups("example.org", 5);
  const plain = median(await lookups("example.org", 50));
  const renewed = median(await lookups("example.com", 50));
  const opened: number[] = [];
  for (let i = 0; i < GRANTS; i++) {
    await lab.host.must(["outcall", "grants", "flush"]);
    opened.push(...await lookups("example.com", 1));
  }
  result({
    ...{ case: "cached answer that opens a grant", unit: "µs", better: "lower" },
    ...{ ours: median(opened), peers: { "open already": renewed, "opens nothing": plain } },
  });

  progress(`${CROWD_SIZE} more agents, plugged in while another one broadcasts`);
  for (let n = FIRST_OF_CROWD; n < FIRST_OF_CROWD + CROWD_SIZE; n++) {
    const end = { machine: crowd, interface: `e${n}`, address: `10.200.255.${n}/24` };
    await connect({ machine: lab.host, interface: `c${n}` }, end);
  }
  const noise = agent.spawn(["ping", "-b", "-q", "-i", "0.002", "10.200.255.255"]);
  const pinned = numbers(
    await lab.host.must(
      [
        ...["python3", CROWD, "plug", `${FIRST_OF_CROWD}`, `${CROWD_SIZE}`],
        DEFAULT_PLACE.bridge,
      ],
      { timeoutMs: 300_000 },
    ),
  );
  noise.kill("SIGKILL");
  const seen = await crowd.must(["nft", "list", "table", "inet", "seen"]);
  if (!/counter packets 0 /.test(seen)) throw new Error(`packets passed before the pin: ${seen}`);
  result({
    ...{ case: "port plugged in until pinned and isolated", unit: "ms", better: "lower" },
    ...{ ours: median(pinned), peers: {} },
  });
  result({
    ...{ case: "the same, the slowest of all", unit: "ms", better: "lower" },
    ...{ ours: Math.max(...pinned), peers: {} },
  });

  progress(`packets of a grant, ${CROWD_SIZE + 1} agents attached`);
  const answered = await crowd.must(
    ["python3", CROWD, "ask", `${FIRST_OF_CROWD}`, `${CROWD_SIZE}`, gateway, "example.com"],
  );
  if (Number(answered) !== CROWD_SIZE) throw new Error(`only ${answered} agents have a grant`);
  await lookups("example.com", 1);
  result({
    ...{ case: `datagrams of a grant, ${CROWD_SIZE + 1} agents with grants`, unit: "packets/s" },
    ...{ better: "higher", ours: await floodRate(agent), peers: { "one agent": alone } },
  });
};
