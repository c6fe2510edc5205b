"""Reads HTTP/1 streams as Python's http.server and http.client do. Takes and prints JSON: see ../readers.ts."""

import http.client
import http.server
import io
import json
import sys


class Socket:
    """What http.client reads from."""

    def __init__(self, stream):
        self.stream = stream

    def makefile(self, *_):
        return self.stream


class Stream(io.BytesIO):
    """http.client closes what it has read to the end."""

    def close(self):
        pass


class Request(http.server.BaseHTTPRequestHandler):
    """The head of one request."""

    def __init__(self, stream):
        self.rfile, self.problem = stream, None
        self.client_address = ("", 0)
        self.raw_requestline = stream.readline(65537)
        if not self.parse_request():
            self.problem = self.problem or "refused"

    def send_error(self, code, message=None, explain=None):
        self.problem = f"{code} {message}"


def fields(headers):
    return [[name.lower(), value] for name, value in headers.items()]


def body(stream, headers):
    """http.client knows chunks, http.server does not; their field lines are the same."""
    if "content-length" not in headers and "transfer-encoding" not in headers:
        return ""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    answer = f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode("latin-1") + stream.read()
    rest = Stream(answer)
    response = http.client.HTTPResponse(Socket(rest))
    response.begin()
    text = response.read().decode("latin-1")
    stream.seek(len(stream.getvalue()) - len(rest.read()))
    return text


def read_request(stream):
    request = Request(stream)
    if request.problem:
        return None, request.problem
    start = " ".join(request.requestline.split(" ")[:2])  # its path has fewer slashes
    message = {"start": start, "fields": fields(request.headers)}
    message["body"] = body(stream, request.headers)
    return message, None


def read_response(stream, method):
    response = http.client.HTTPResponse(Socket(stream), method=method)
    response.begin()
    text = response.read().decode("latin-1")
    return {"start": str(response.status), "fields": fields(response.headers), "body": text}, None


def read(case):
    stream, messages = Stream(case["bytes"].encode("latin-1")), []
    while stream.tell() < len(stream.getvalue()):
        try:
            if case["kind"] == "request":
                message, problem = read_request(stream)
            else:
                message, problem = read_response(stream, case["method"])
        except http.client.IncompleteRead:
            message, problem = None, "cut off"
        except (http.client.HTTPException, ConnectionError) as thrown:
            message, problem = None, repr(thrown)
        if problem:
            return {"messages": messages, "problem": problem}
        messages.append(message)
    return {"messages": messages, "problem": None}


print(json.dumps([read(case) for case in json.load(sys.stdin)]))
