"""Reads TLS ClientHellos as OpenSSL does, on the server's side.

With "write" it prints hellos of OpenSSL's own client that name "a.example", as JSON and in
hexadecimal. With "read" it takes such a list, and prints the server name in each: "" for none, null
where the hello was refused before it mattered.
"""

import json
import ssl
import sys

NAME = "a.example"


def hello(version, protocols):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = version
    if protocols:
        context.set_alpn_protocols(protocols)
    sent = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=NAME)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return sent.read().hex()


def read(context, text):
    received, names = ssl.MemoryBIO(), []

    def named(_connection, name, _context):
        names.append(name or "")
        return ssl.ALERT_DESCRIPTION_ACCESS_DENIED

    context.sni_callback = named
    received.write(bytes.fromhex(text))
    try:
        context.wrap_bio(received, ssl.MemoryBIO(), server_side=True).do_handshake()
    except ssl.SSLError:
        pass
    return names[0] if names else None


if sys.argv[1:] == ["read"]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    print(json.dumps([read(server, text) for text in json.load(sys.stdin)]))
else:
    versions = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
    print(json.dumps([hello(v, p) for v in versions for p in ([], ["h2", "http/1.1"])]))
