"""A server that speaks as much of S3 as pyarrow needs, in memory, with faults to order: for tests and benchmarks."""

from __future__ import annotations

import re
import threading
import time
import urllib.parse
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS = ("500", "503", "403", "close", "slow", "stall", "truncate", "wrong")


class Server(ThreadingHTTPServer):
    """`objects` {bucket/key: bytes}; the next requests for an object's bytes meet `faults`, one each."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.faults: deque[str] = deque()
        self.always = ""  # a fault that every request for bytes meets
        self.delay = 0.0  # seconds before every answer with bytes
        self.read: list[tuple[str, int, int]] = []  # (object, first byte, bytes) of every request for bytes
        self.lock = threading.Lock()

    def address(self, place: str) -> str:
        return address(place, self.server_port)

    def fault(self) -> str:
        with self.lock:
            return self.always or (self.faults.popleft() if self.faults else "")

    def handle_error(self, *_: object) -> None:
        """A client that has gone, as one that ran out of patience has, is no matter."""


def address(place: str, port: int) -> str:
    """The address of a bucket and prefix of a server on this machine."""
    return f"s3://{place}?scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def _place(self) -> tuple[str, dict[str, str]]:
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        return urllib.parse.unquote(parts.path).strip("/"), query

    def _answer(self, status: int, body: bytes = b"", declared: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if declared is None else declared))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())

    def _object(self, place: str) -> dict[str, str]:
        return {"ETag": f'"{hash(place)}"', "Last_Modified": formatdate(usegmt=True)}

    def do_HEAD(self) -> None:
        place, _ = self._place()
        if place in self.server.objects:
            size = len(self.server.objects[place])
            return self._answer(200, declared=size, **self._object(place))
        buckets = {name.partition("/")[0] for name in self.server.objects} | {"bucket"}
        return self._answer(200 if place in buckets else 404)

    def do_GET(self) -> None:
        place, query = self._place()
        if "list-type" in query:
            return self._list(place, query)
        fault = self.server.fault()
        if place not in self.server.objects:
            return self._refuse(404, "NoSuchKey")
        held = self.server.objects[place]
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, last = (int(wanted[1]), int(wanted[2])) if wanted else (0, len(held) - 1)
        body = held[first : last + 1]
        with self.server.lock:
            self.server.read.append((place, first, len(body)))
        time.sleep(self.server.delay)
        headers = self._object(place) | {"Content_Range": f"bytes {first}-{first + len(body) - 1}/{len(held)}"}
        match fault:
            case "500":
                return self._refuse(500, "InternalError")
            case "503":
                return self._refuse(503, "SlowDown")
            case "403":
                return self._refuse(403, "AccessDenied")
            case "close":
                self.close_connection = True
                return self.connection.close()
            case "truncate":
                self.close_connection = True
                return self._answer(206, body[: len(body) // 2], declared=len(body), **headers)
            case "wrong":
                body = bytes([body[0] ^ 1]) + body[1:]
            case "slow":
                time.sleep(0.5)
            case "stall":
                time.sleep(8)
        return self._answer(206 if wanted else 200, body, **headers)

    def _list(self, place: str, query: dict[str, str]) -> None:
        prefix = f"{place}/{query.get('prefix', '')}"
        entries = "".join(
            f"<Contents><Key>{name.partition('/')[2]}</Key><Size>{len(held)}</Size>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for name, held in sorted(self.server.objects.items())
            if name.startswith(prefix)
        )
        count = entries.count("<Contents>")
        body = f"<ListBucketResult><KeyCount>{count}</KeyCount><IsTruncated>false</IsTruncated>{entries}"
        self._answer(200, f"{body}</ListBucketResult>".encode(), Content_Type="application/xml")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            held = b""
            while size := int(self.rfile.readline(), 16):
                held += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            held = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
            return held
        parts = []
        while held:  # size[;signature] CRLF bytes CRLF ... 0 CRLF trailers
            line, _, held = held.partition(b"\r\n")
            size = int(line.partition(b";")[0], 16)
            if not size:
                break
            parts.append(held[:size])
            held = held[size + 2 :]
        return b"".join(parts)

    def do_PUT(self) -> None:
        place, query = self._place()
        body = self._body()
        fault = self.server.fault()
        if fault in ("500", "503"):
            return self._refuse(int(fault), "InternalError" if fault == "500" else "SlowDown")
        if "uploadId" in query:
            self.server.uploads[query["uploadId"]][int(query["partNumber"])] = body
        else:
            self.server.objects[place] = body
        return self._answer(200, ETag=f'"{hash(place)}"')

    def do_POST(self) -> None:
        place, query = self._place()
        self._body()
        if "uploads" in query:
            number = f"upload{len(self.server.uploads)}"
            self.server.uploads[number] = {}
            bucket, _, key = place.partition("/")
            tags = f"<Bucket>{bucket}</Bucket><Key>{key}</Key><UploadId>{number}</UploadId>"
            return self._answer(200, f"<InitiateMultipartUploadResult>{tags}</InitiateMultipartUploadResult>".encode())
        parts = self.server.uploads.pop(query["uploadId"])
        self.server.objects[place] = b"".join(parts[number] for number in sorted(parts))
        result = f"<Key>{place}</Key><ETag>whole</ETag>"
        return self._answer(200, f"<CompleteMultipartUploadResult>{result}</CompleteMultipartUploadResult>".encode())

    def do_DELETE(self) -> None:
        place, query = self._place()
        if "uploadId" in query:
            self.server.uploads.pop(query["uploadId"], None)
        else:
            self.server.objects.pop(place, None)
        self._answer(204)


def serve(port: Any, delay: float) -> None:
    """Serve for as long as the process lives; put the port into `port`, a multiprocessing queue."""
    with Server() as server:
        server.delay = delay
        port.put(server.server_port)
        server.serve_forever()


@contextmanager
def serving() -> Iterator[Server]:
    """A server at work on a free port of this machine."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
