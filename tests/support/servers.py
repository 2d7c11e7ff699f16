"""A server of files on loopback that answers as plain http and as S3, and fails as it is told."""

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

NOT_FOUND = b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>not there</Message></Error>"


class Files(ThreadingHTTPServer):
    """Serves a folder.

    Attributes:
        faults: by file name, what happens to its next GETs: `refuse` (closed without a word), `drop` (half of what was asked
            for, then closed), `busy` (503), `denied` (403), `missing` (404), `flip` (a wrong bit), `cut` (half the file, said to be all),
            `more` (a byte too many), `stall` (half, then silence), `whole` (the range is ignored). A `*` goes on for ever:
            `["flip", "*"]`.
        gets: (file name, first byte asked for) of every GET.
        signed: how many requests carried an S3 signature.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.faults: dict[str, list[str]] = {}
        self.gets: list[tuple[str, int]] = []
        self.signed = 0
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def next_fault(self, name: str) -> str:
        with self.lock:
            left = self.faults.get(name, [])
            if not left:
                return ""
            return left[0] if left[1:] == ["*"] else left.pop(0)

    def count(self, suffix: str) -> Counter[str]:
        """GETs of each file with an ending."""
        return Counter(name for name, _ in self.gets if name.endswith(suffix))

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients go away when they please."""


class _Handler(BaseHTTPRequestHandler):
    server: Files
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        path = self._path()
        missing = self.server.faults.get(path.name, [])[:1] == ["missing"] and self.server.next_fault(path.name)
        if missing or not path.is_file():
            return self._head(404, 0)
        self._head(200, path.stat().st_size)

    def do_GET(self) -> None:
        name = self._path().name
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        with self.server.lock:
            self.server.gets.append((name, first))
            self.server.signed += "AWS4-HMAC-SHA256" in self.headers.get("Authorization", "")
        fault = self.server.next_fault(name)
        if fault == "refuse":
            self.close_connection = True
            return
        if fault == "busy":
            return self._send(503, b"")
        if fault == "denied":
            return self._send(403, b"")
        if fault == "missing" or not self._path().is_file():
            return self._send(404, NOT_FOUND)
        data = self._path().read_bytes()
        if fault == "flip":
            data = data[:2000] + bytes([data[2000] ^ 1]) + data[2001:]
        elif fault == "cut":
            data = data[: len(data) // 2]
        elif fault == "more":
            data += b"\0"
        whole, last = len(data), len(data)
        if asked and fault != "whole":
            last = min(int(asked[2] or whole) + 1, whole)
            data = data[first:last]
        status = 206 if asked and fault != "whole" else 200
        self._head(status, len(data), f"bytes {first}-{last - 1}/{whole}" if status == 206 else "")
        half = fault in ("drop", "stall")
        self.wfile.write(data[: len(data) // 2] if half else data)
        if fault == "stall":
            self.wfile.flush()
            time.sleep(60)
        self.close_connection = self.close_connection or half

    def _path(self) -> Path:
        return self.server.folder / Path(self.path.partition("?")[0]).name

    def _send(self, status: int, data: bytes) -> None:
        self._head(status, len(data))
        self.wfile.write(data)

    def _head(self, status: int, size: int, content_range: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(size))
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Last-Modified", "Thu, 01 Jan 1970 00:00:00 GMT")
        self.send_header("ETag", '"0"')
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()


@contextmanager
def serving(folder: Path) -> Iterator[Files]:
    """A server of a folder, as long as the block lasts."""
    server = Files(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
