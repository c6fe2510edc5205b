"""What a hostile program in a container tries: packets to everywhere, and frames that no honest
program sends. Each command prints what became of it; whether anything arrived is for others to say.

    everything ADDRESS...                         every protocol to every address, at once
    arp REPLY_MAC REPLY_IP TO_MAC TO_IP           ARP replies: REPLY_IP is at REPLY_MAC
    frames FROM_MAC TO_MACS ETHERTYPES            one frame to each, of each protocol
    tcp FROM_MAC TO_MAC FROM_IP TO_IP PORT        one TCP SYN
    dns FROM_MAC TO_MAC FROM_IP TO_IP NAME        one question for an A record
    sniff                                         prints each frame that comes in, until it is ended
    tagged DEPTH COMMAND...                       the same, each frame behind that many priority tags

FROM_MAC and REPLY_MAC may be "own".
"""

import errno
import fcntl
import select
import socket
import struct
import sys
import time

INTERFACE = "eth0"
ETH_P_ALL = 3
ETH_P_IP = 0x0800
ETH_P_ARP = 0x0806
SIOCGIFHWADDR = 0x8927
SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC = 263, 1, 1
BROADCAST = b"\xff" * 6
PRIORITY_TAG = struct.pack("!HH", 0x8100, 0)  # IEEE 802.1Q: VLAN 0
# Bytes that a receiver recognises, enough for a frame that is not padded.
MARK = b"outcall hostile frame".ljust(64, b".")
# Neighbour entries resist change for a second after they were confirmed.
ARP_REPEATS, ARP_PAUSE_SECONDS = 3, 0.5


def own_mac():
    request = struct.pack("256s", INTERFACE.encode())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        return fcntl.ioctl(any_socket.fileno(), SIOCGIFHWADDR, request)[18:24]


def mac(text):
    return own_mac() if text == "own" else bytes.fromhex(text.replace(":", ""))


def send(to_mac, from_mac, ethertype, payload):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
        raw.bind((INTERFACE, 0))
        raw.send(to_mac + from_mac + tags + struct.pack("!H", ethertype) + payload)
    print("sent", flush=True)


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(protocol, source, target, payload):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0,
                       socket.inet_aton(source), socket.inet_aton(target))
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def with_checksum(protocol, source, target, segment, offset):
    pseudo = socket.inet_aton(source) + socket.inet_aton(target)
    pseudo += struct.pack("!BBH", 0, protocol, len(segment))
    value = struct.pack("!H", checksum(pseudo + segment))
    return segment[:offset] + value + segment[offset + 2:]


def syn(source, target, port):
    segment = struct.pack("!HHIIBBHHH", 45678, port, 1, 0, 5 << 4, 2, 65535, 0, 0)
    return ipv4(6, source, target, with_checksum(6, source, target, segment, 16))


def question(source, target, name):
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    message = struct.pack("!HHHHHH", 4711, 0x0100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"
    datagram = struct.pack("!HHHH", 45678, 53, 8 + len(message), 0) + message
    return ipv4(17, source, target, with_checksum(17, source, target, datagram, 6))


def ipv6_to_all_nodes():
    """What bridges pass on: a whole packet, to ff02::1, without a next header (RFC 8200 4.7)."""
    source, target = [socket.inet_pton(socket.AF_INET6, text) for text in ("fe80::66", "ff02::1")]
    return struct.pack("!IHBB16s16s", 6 << 28, 0, 59, 1, source, target)


def arp_reply(reply_mac, reply_ip, to_mac, to_ip):
    return struct.pack("!HHBBH6s4s6s4s", 1, ETH_P_IP, 6, 4, 2, reply_mac,
                       socket.inet_aton(reply_ip), to_mac, socket.inet_aton(to_ip))


def sniff():
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as raw:
        raw.bind((INTERFACE, ETH_P_ALL))
        index = socket.if_nametoindex(INTERFACE)
        raw.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP,
                       struct.pack("iHH8s", index, PACKET_MR_PROMISC, 0, b""))
        print("listening", flush=True)
        while True:
            frame, (_, _, kind, _, _) = raw.recvfrom(65535)
            if kind == socket.PACKET_OUTGOING:
                continue
            ethertype = struct.unpack("!H", frame[12:14])[0]
            words = [frame[6:12].hex(":"), frame[0:6].hex(":"), "%04x" % ethertype]
            if ethertype == ETH_P_IP:
                words += [socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34])]
            elif ethertype == ETH_P_ARP:
                words += [socket.inet_ntoa(frame[28:32]), socket.inet_ntoa(frame[38:42])]
            print(*words, flush=True)


def attempt(what, target, work):
    try:
        work()
        print(what, target, "sent", flush=True)
    except OSError as error:
        print(what, target, errno.errorcode.get(error.errno, error.errno), flush=True)


def datagram(target, port, payload):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        udp.sendto(payload, (target, port))


def packet(target, protocol, payload):
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        raw.sendto(payload, (target, 0))


def echo_request():
    head = struct.pack("!BBHHH", 8, 0, 0, 1, 1)
    return head[:2] + struct.pack("!H", checksum(head)) + head[4:]


def everything(targets):
    calls = []
    for target in targets:
        for port in (22, 53, 80, 443, 853, 9000):
            call = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            call.setblocking(False)
            outcome = call.connect_ex((target, port))
            if outcome == errno.EINPROGRESS:
                calls.append((call, target, port))
            else:
                print("tcp", target, port, errno.errorcode.get(outcome), flush=True)
        for port in (53, 123, 443, 8080):
            attempt("udp", target, lambda: datagram(target, port, MARK))
        attempt("fragments", target, lambda: datagram(target, 7, MARK * 64))
        attempt("full-size", target, lambda: datagram(target, 7, b"x" * 1472))
        attempt("icmp", target, lambda: packet(target, socket.IPPROTO_ICMP, echo_request()))
        for protocol in (132, 47, 253):  # SCTP, GRE, one for experiments (RFC 3692)
            attempt("protocol-%d" % protocol, target, lambda: packet(target, protocol, MARK))
    until = time.monotonic() + 1
    while calls and time.monotonic() < until:
        _, done, _ = select.select([], [call for call, _, _ in calls], [], 0.1)
        for call, target, port in [one for one in calls if one[0] in done]:
            outcome = call.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            print("tcp", target, port, "connected" if outcome == 0 else
                  errno.errorcode.get(outcome), flush=True)
            calls = [one for one in calls if one[0] is not call]


command, *words = sys.argv[1:]
tags = b""
if command == "tagged":
    depth, command, *words = words
    tags = PRIORITY_TAG * int(depth)
if command == "everything":
    everything(words)
elif command == "arp":
    reply_mac, reply_ip, to_mac, to_ip = words
    for _ in range(ARP_REPEATS):
        send(mac(to_mac), own_mac(), ETH_P_ARP,
             arp_reply(mac(reply_mac), reply_ip, mac(to_mac), to_ip))
        time.sleep(ARP_PAUSE_SECONDS)
elif command == "frames":
    from_mac, to_macs, ethertypes = words
    for to_mac in to_macs.split(","):
        for ethertype in ethertypes.split(","):
            payload = ipv6_to_all_nodes() if ethertype == "86dd" else MARK
            send(mac(to_mac), mac(from_mac), int(ethertype, 16), payload)
elif command == "tcp":
    from_mac, to_mac, from_ip, to_ip, port = words
    send(mac(to_mac), mac(from_mac), ETH_P_IP, syn(from_ip, to_ip, int(port)))
elif command == "dns":
    from_mac, to_mac, from_ip, to_ip, name = words
    send(mac(to_mac), mac(from_mac), ETH_P_IP, question(from_ip, to_ip, name))
elif command == "sniff":
    sniff()
