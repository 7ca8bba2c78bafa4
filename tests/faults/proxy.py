"""A faulty HTTP proxy between the courier and a healthy server: each fault is one function.

A fault is given a request and decides what becomes of it: pass it on, answer something else, or answer
nothing at all. `Proxy.fault` may be replaced at any time.
"""

from __future__ import annotations

import http.client
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from types import TracebackType

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


@dataclass(frozen=True)
class Answer:
    """What a client receives; with `cut` only the first half of the body, then the connection is closed."""

    status: int
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


@dataclass
class Request:
    """A request whose body is still on its way."""

    method: str
    path: str
    headers: dict[str, str]
    stream: BufferedIOBase
    upstream: int
    closing: threading.Event

    def body(self, share: float = 1.0) -> bytes:
        """Receives this share of the body; to be called once."""
        return self.stream.read(int(share * int(self.headers.get("Content-Length", 0))))

    def forward(self) -> Answer:
        """Asks the healthy server."""
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=30)
        try:
            connection.request(self.method, self.path, self.body(), self.headers)
            reply = connection.getresponse()
            kept = {key: value for key, value in reply.getheaders() if key.lower() not in _HOP_BY_HOP}
            return Answer(reply.status, reply.read(), kept)
        except OSError as error:
            return Answer(502, str(error).encode())
        finally:
            connection.close()


Fault = Callable[[Request], Answer | None]  # None closes the connection without a word


def healthy(request: Request) -> Answer | None:
    """Passes everything on."""
    return request.forward()


def failing(rng: random.Random, share: float) -> Fault:
    """Answers 429, 500 or 503 to a share of the requests; half of these have been carried out all the same."""

    def fault(request: Request) -> Answer | None:
        if rng.random() >= share:
            return request.forward()
        if rng.random() < 0.5:
            request.forward()  # its answer is lost: whoever repeats it must not make a second run
        else:
            request.body()
        return Answer(rng.choice((429, 500, 503)))

    return fault


def slow(delay_s: float) -> Fault:
    """Passes everything on, late."""

    def fault(request: Request) -> Answer | None:
        request.closing.wait(delay_s)
        return request.forward()

    return fault


def hanging(healed: threading.Event) -> Fault:
    """Accepts and never answers; closes the connection once healed."""

    def fault(request: Request) -> Answer | None:
        while not healed.wait(0.05) and not request.closing.is_set():
            continue
        return None

    return fault


def cutting(share: float, rng: random.Random) -> Fault:
    """Carries a share of the requests out, sends half of the answer, and closes the connection."""

    def fault(request: Request) -> Answer | None:
        answer = request.forward()
        return Answer(answer.status, answer.body, answer.headers, cut=rng.random() < share)

    return fault


def authorized(expected: Callable[[], str]) -> Fault:
    """Passes on what carries the `Authorization` expected at that moment; 401 for everything else."""

    def fault(request: Request) -> Answer | None:
        if request.headers.get("Authorization") == expected():
            return request.forward()
        request.body()
        return Answer(401, b'{"error_code": "UNAUTHENTICATED", "message": "the token has expired"}')

    return fault


def uploads_cut(times: int) -> tuple[Fault, list[str]]:
    """Closes the connection half-way through the first `times` uploads; also returns the paths it cut."""
    cut: list[str] = []

    def fault(request: Request) -> Answer | None:
        if request.method == "PUT" and "mlflow-artifacts" in request.path and len(cut) < times:
            cut.append(request.path)
            request.body(share=0.5)
            return None
        return request.forward()

    return fault, cut


class Proxy:
    """Listens on a port of 127.0.0.1 while it is open, and lets `fault` decide about each request."""

    def __init__(self, upstream: int, fault: Fault = healthy, port: int = 0) -> None:
        self.fault = fault
        self.requests = 0
        self._closing = threading.Event()
        self._server = _Server(("127.0.0.1", port), _handler(self, upstream, self._closing))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="proxy")
        self._thread.start()

    @property
    def address(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing: clients that are killed half-way are what this is for."""


def _handler(proxy: Proxy, upstream: int, closing: threading.Event) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        # HTTP/1.0: a connection for each request, so that replacing the fault concerns the very next one.
        def _serve(self) -> None:
            proxy.requests += 1
            request = Request(self.command, self.path, dict(self.headers), self.rfile, upstream, closing)
            answer = proxy.fault(request)
            self.close_connection = True
            if answer is None:
                return
            self.send_response(answer.status)
            for key, value in answer.headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body[: len(answer.body) // 2] if answer.cut else answer.body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    return Handler
