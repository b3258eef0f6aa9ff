"""An HTTP proxy that fails as object stores and networks do, by a seed; and a real S3 server in a process of its own."""

import contextlib
import http.client
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# What can happen to a request. "lost": it is carried out, but its reply never arrives.
FAULTS = ("500", "503", "reset", "truncate", "slow", "hang", "lost")
SLOW_DOWN = b'<?xml version="1.0"?><Error><Code>%s</Code><Message>by the test</Message></Error>'
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}

SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print("%s:%d" % server.get_host_and_port(), flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def s3_process() -> Iterator[str]:
    """Address (host:port) of a real S3 protocol server, in a process of its own that ends with this one."""
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        address = server.stdout.readline().strip()
        assert address, "the S3 server did not start"
        yield address
    finally:
        server.stdin.close()
        server.wait(20)


class FaultyProxy:
    """Forwards to ``target`` (host:port). ``shares`` says which share of the requests each of `FAULTS` befalls.

    Faults are drawn by ``seed`` in the order in which requests come in; ``happened`` counts them. As a context it serves.
    """

    def __init__(
        self, target: str, shares: Mapping[str, float], *, seed: int = 0, hang_s: float = 3.0, slow_s: float = 0.3
    ) -> None:
        unknown = set(shares) - set(FAULTS)
        assert not unknown, f"no such faults: {unknown}"
        self.target, self.shares, self.hang_s, self.slow_s = target, dict(shares), hang_s, slow_s
        self.happened: Counter[str] = Counter()
        self.requests = 0
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self._server.daemon_threads = True
        self._server.block_on_close = False

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self._server.server_address)

    def draw(self) -> str | None:
        """What befalls the next request."""
        with self._lock:
            self.requests += 1
            place = self._random.random()
            for fault, share in self.shares.items():
                if place < share:
                    self.happened[fault] += 1
                    return fault
                place -= share
            return None

    def __enter__(self) -> "FaultyProxy":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultyProxy
    protocol_version = "HTTP/1.1"

    def _relay(self) -> None:
        body = self._body()
        fault = self.proxy.draw()
        if fault in ("500", "503"):
            return self._refuse(int(fault))
        if fault == "slow":
            time.sleep(self.proxy.slow_s)
        elif fault == "hang":
            time.sleep(self.proxy.hang_s)
        if fault in ("reset", "hang"):
            return self._reset()
        status, headers, answer = self._forward(body)
        if fault == "lost":
            return self._reset()
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in HOP_BY_HOP | {"content-length"}:
                self.send_header(name, value)
        length = next((value for name, value in headers if name.lower() == "content-length"), str(len(answer)))
        self.send_header("Content-Length", length)
        self.end_headers()
        if fault == "truncate":
            self.wfile.write(answer[: len(answer) // 2])
            return self._reset()
        self.wfile.write(answer)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _relay

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.proxy.target, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        headers["Content-Length"] = str(len(body))
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        with contextlib.closing(connection):
            return answer.status, answer.getheaders(), answer.read()

    def _refuse(self, status: int) -> None:
        code = b"SlowDown" if status == 503 else b"InternalError"
        answer = b"" if self.command == "HEAD" else SLOW_DOWN % code
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _reset(self) -> None:
        """End the connection with a TCP reset, as a dying server or a firewall does."""
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # clients may go away
            super().handle()
