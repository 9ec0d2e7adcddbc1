"""JSON over HTTP to one server, with connections that stay open, and errors told apart by what helps."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import threading
from typing import Any
from urllib.parse import urlsplit

from turnwise.run.errors import SettingError

KEY = "TURNWISE_ENGINE_KEY"
"""environment variable with the key that servers ask for, if they ask for one"""
FULL = (408, 425, 429)
"""answers of a server that has too much to do, beside all from 500 on"""


class Unavailable(Exception):
    """The server did not answer, or cannot now: another try may succeed, here or elsewhere."""


class Refused(Exception):
    """The server answered that it will not, and will not at a second try either."""

    def __init__(self, status: int, words: str) -> None:
        self.status, self.words = status, words
        super().__init__(f"{words} (HTTP {status})")


class Transport:
    """One server by its address. Threads may share it: each has a connection of its own."""

    def __init__(self, url: str, timeout: float):
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not _has_host(parts):
            raise SettingError("engine", url, "addresses of servers, as http://127.0.0.1:8000")
        self.secure, self.host, self.port = parts.scheme == "https", str(parts.hostname), parts.port
        self.prefix = parts.path.rstrip("/").removesuffix("/v1")
        self.timeout = timeout
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        self.url = f"{parts.scheme}://{host}{port}{self.prefix}"
        self._threads = threading.local()
        self._closed = False
        self._open: set[http.client.HTTPConnection] = set()

    def get(self, path: str) -> Any:
        """What the server says at `path`."""
        return self._ask("GET", path, None, self.timeout)

    def post(self, path: str, body: Any = None, *, timeout: float | None = None) -> Any:
        """The answer to `body`. Unavailable or Refused if there is none."""
        return self._ask("POST", path, body, timeout or self.timeout)

    def close(self) -> None:
        """Close all connections, and open no more."""
        self._closed = True
        for line in list(self._open):
            line.close()

    def _ask(self, method: str, path: str, body: Any, timeout: float) -> Any:
        status, raw = self._exchange(method, path, None if body is None else json.dumps(body), timeout)
        if status in FULL or status >= 500:
            raise Unavailable(f"{_words(raw) or 'no reason given'} (HTTP {status})")
        if status != 200:
            raise Refused(status, _words(raw) or "no reason given")
        try:
            return json.loads(raw) if raw.strip() else None
        except ValueError:
            return raw.decode(errors="replace")

    def _exchange(self, method: str, path: str, body: str | None, timeout: float) -> tuple[int, bytes]:
        """(status, body) of one exchange; a connection that was closed meanwhile is opened anew."""
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {key}"
        if self._closed:
            raise Unavailable("the run lets go of it")
        kept: http.client.HTTPConnection | None = getattr(self._threads, "line", None)
        if kept is not None:
            self._threads.line = None
            with contextlib.suppress(OSError, http.client.HTTPException):
                return self._send(kept, (method, self.prefix + path, body, headers), timeout)
        line = self._connection()
        try:
            return self._send(line, (method, self.prefix + path, body, headers), timeout)
        except (OSError, http.client.HTTPException) as e:
            raise Unavailable(_trouble(e, timeout)) from e

    def _send(self, line: http.client.HTTPConnection, request: tuple[Any, ...], timeout: float) -> Any:
        """Speak on a connection, and keep it if all went well. Unavailable if it takes too long."""
        line.timeout = timeout
        if line.sock is not None:
            line.sock.settimeout(timeout)
        try:
            line.request(*request)
            with line.getresponse() as response:
                found = response.status, response.read()
        except TimeoutError as e:
            self._drop(line)
            raise Unavailable(_trouble(e, timeout)) from e
        except (OSError, http.client.HTTPException):
            self._drop(line)
            raise
        self._threads.line = line
        if self._closed:
            self._drop(line)
        return found

    def _drop(self, line: http.client.HTTPConnection) -> None:
        line.close()
        self._open.discard(line)

    def _connection(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        line = kind(self.host, self.port)
        self._open.add(line)
        return line


def addresses(engine: str) -> list[str]:
    """The addresses in a text that separates them by commas. SettingError if there is none, or one twice."""
    found = [part.strip() for part in engine.split(",") if part.strip()]
    if not found:
        raise SettingError("engine", engine, "addresses of servers, as http://127.0.0.1:8000")
    if len({Transport(x, 1.0).url for x in found}) < len(found):
        raise SettingError("engine", engine, "each server once")
    return found


def _has_host(parts: Any) -> bool:
    try:
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number
        return False


def _trouble(e: Exception, timeout: float) -> str:
    if isinstance(e, TimeoutError):
        return f"no answer within {timeout:g} seconds"
    if isinstance(e, ConnectionRefusedError):
        return "connection refused"
    return str(e) or type(e).__name__


def _words(raw: bytes) -> str:
    """What an error says, in the forms in which servers write it."""
    text = raw.decode(errors="replace").strip()
    try:
        found = json.loads(text)
    except ValueError:
        return text[:300]
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(key):
            found = found[key]
    return (found if isinstance(found, str) else json.dumps(found))[:300]
