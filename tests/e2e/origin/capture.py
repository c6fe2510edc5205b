"""Captures one TCP connection; prints what was sent each way: bytes and SHA-256, as JSON.

Arguments: interface, the server's port, and "proxied" to leave out an exchange of HTTP heads in
front. Prints "ready" first. Ends when both sides have.
"""

import hashlib
import json
import socket
import struct
import sys

interface, port, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]
ETH_P_ALL = 3
FIN, SYN, RST = 1, 2, 4


class Direction:
    """The segments of one direction by sequence number; retransmissions fall on themselves."""

    def __init__(self):
        self.first = None
        self.end = None
        self.segments = {}

    def take(self, seq, flags, payload):
        if flags & SYN:
            self.first = (seq + 1) & 0xFFFFFFFF
            seq = self.first
        offset = (seq - self.first) & 0xFFFFFFFF
        if len(payload) > len(self.segments.get(offset, b"")):
            self.segments[offset] = payload
        if flags & FIN:
            self.end = offset + len(payload)

    def text(self):
        whole = b""
        for offset in sorted(self.segments):
            assert offset <= len(whole), "a segment was not seen"
            whole = whole[:offset] + self.segments[offset]
        return whole

    def done(self):
        return self.end is not None and len(self.text()) >= self.end


packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
packets.bind((interface, ETH_P_ALL))
print("ready", flush=True)
up, down = Direction(), Direction()
client_port = None
while True:
    packet = packets.recv(1 << 17)
    if packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_TCP:
        continue
    total, ip_bytes = struct.unpack("!H", packet[2:4])[0], (packet[0] & 15) * 4
    segment = packet[ip_bytes:total]
    source, target, seq = struct.unpack("!HHI", segment[:8])
    flags, payload = segment[13], segment[(segment[12] >> 4) * 4 :]
    if target == port and flags & SYN:
        client_port = source
    if client_port is None or {source, target} != {port, client_port}:
        continue
    (up if target == port else down).take(seq, flags, payload)
    if flags & RST or (up.done() and down.done()):
        break

shown = {}
for name, direction in (("up", up), ("down", down)):
    text = direction.text()
    if mode == "proxied":
        text = text[text.index(b"\r\n\r\n") + 4 :]
    shown[name] = {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}
print(json.dumps(shown), flush=True)
