"""
Two hundred agents at once, as cheaply as can be: each a port on the managed bridge, and an interface
with its address in one namespace. Runs as root.

    plug FIRST COUNT BRIDGE       on the host: plugs the cables c<n> one after the other; prints for
                                  each how many milliseconds passed until it was isolated and pinned
    ask FIRST COUNT GATEWAY NAME  in the namespace: has each of them resolve NAME; prints how many did
    time GATEWAY NAME COUNT [PORT PAUSE_MS]
                                  as one agent: prints how many microseconds each look-up took
"""
import socket, struct, subprocess, sys, time


def address(number):
    return f"10.200.255.{number}"


def plug(first, count, bridge):
    for n in range(first, first + count):
        start = time.monotonic()
        run("ip", "link", "set", f"c{n}", "master", bridge)
        # A port that is not isolated gets no pin.
        while f'"c{n}"' not in run("nft", "list", "set", "bridge", "outcall", "pinned"):
            pass
        print((time.monotonic() - start) * 1000, flush=True)


def run(*argv):
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def query(name):
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack(">6H", 1, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 1, 1)


def ask(first, count, gateway, name):
    answered = 0
    for n in range(first, first + count):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setsockopt(socket.SOL_SOCKET, 25, f"e{n}".encode())  # SO_BINDTODEVICE
            client.bind((address(n), 0))
            client.settimeout(5)
            client.sendto(query(name), (gateway, 53))
            answered += client.recv(512)[7] > 0  # low byte of the number of answers
    print(answered)


def timed(gateway, name, count, port=53, pause_ms=10):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((gateway, port))
        client.settimeout(5)
        for _ in range(count):
            start = time.monotonic()
            client.send(query(name))
            client.recv(512)
            print((time.monotonic() - start) * 1e6, flush=True)
            time.sleep(pause_ms / 1000)


what, *rest = sys.argv[1:]
if what == "plug":
    plug(int(rest[0]), int(rest[1]), rest[2])
elif what == "ask":
    ask(int(rest[0]), int(rest[1]), rest[2], rest[3])
else:
    timed(rest[0], rest[1], *map(int, rest[2:]))
