"""The pages of `fastgan ui` on this machine: standard library alone, a random token in the address.

Names and texts of run folders are escaped or sent as JSON, which the page's script sets as text.
"""

from __future__ import annotations

import hmac
import io
import json
import secrets
from collections.abc import Callable
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from fastgan import files
from fastgan.errors import FastganError
from fastgan.monitor import pictures
from fastgan.reports import page
from fastgan.reports.document import asset, document
from fastgan.reports.reading import grids, read_grid, read_story
from fastgan.ui.resuming import Training
from fastgan.ui.runs import Playground, Wish, found, status, stop, trainer_of

HTML, JSON, PNG = "text/html; charset=utf-8", "application/json", "image/png"


class Missing(FastganError):
    """There is no such page."""


class Server:
    """The runs in a folder, or one run, at `address`. Raises FastganError where there is no such
    folder, or the port is taken."""

    def __init__(
        self, folder: str | Path, host: str = "127.0.0.1", port: int = 0, *, trust: bool = False
    ) -> None:
        self.folder, self.trust = files.path_of(folder, "RUNS"), trust
        found(self.folder)
        self.token = secrets.token_urlsafe(16)
        self.playgrounds: dict[Path, Playground] = {}
        self.trainings: dict[Path, Training] = {}
        try:
            self.http = ThreadingHTTPServer((host, port), self._handler())
        except OSError as error:
            raise FastganError(
                f"can't listen on {host}:{port} ({error.strerror or error}): choose another --port"
            ) from error
        self.alone = host == "127.0.0.1"
        self.host = f"{host}:{self.http.server_address[1]}"
        self.address = f"http://{self.host}/{self.token}/"

    def serve(self) -> None:
        """Until Ctrl-C, or `close`."""
        try:
            self.http.serve_forever(0.2)
        finally:
            self.http.server_close()

    def close(self) -> None:
        self.http.shutdown()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer("GET")

            def do_POST(self) -> None:
                self._answer("POST")

            def _answer(self, method: str) -> None:
                kind, body, code = HTML, b"", 200
                try:
                    kind, body = server.answer(method, self.path, self.headers)
                except Missing as error:
                    kind, body, code = JSON, _json({"error": str(error)}), 404
                except FastganError as error:
                    kind, body, code = JSON, _json({"error": str(error)}), 400
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "no-store")
                self.send_header("Referrer-Policy", "no-referrer")
                self.send_header("X-Content-Type-Options", "nosniff")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Nothing: the address holds the token."""

        return Handler

    def answer(self, method: str, target: str, headers: Any) -> tuple[str, bytes]:
        """(type, body) of a request. Raises Missing or FastganError."""
        address = urlsplit(target)
        parts = [unquote(part) for part in address.path.split("/")[1:]]
        # another page's script, or a name that someone else's server of names points here
        named = headers.get("Host")
        theirs = headers.get("Origin", f"http://{named}") != f"http://{named}"
        theirs = theirs or (self.alone and named != self.host)
        if theirs or not hmac.compare_digest(parts[0].encode(), self.token.encode()):
            raise Missing("there is nothing here: use the whole address that fastgan ui printed")
        query = {name: values[-1] for name, values in parse_qs(address.query).items()}
        runs = found(self.folder)
        if method == "GET" and parts[1:] == [""]:
            return HTML, _page("runs", "fastgan: runs", "<main id=runs></main>").encode()
        if method == "GET" and parts[1:] == ["list.json"]:
            return JSON, _json([_summary(*run, self._status) for run in runs.items()])
        if len(parts) != 4 or parts[1] != "run" or parts[2] not in runs:
            raise Missing("there is no such run or page")
        if method == "POST":
            return JSON, _json(self._press(runs[parts[2]], parts[3], query))
        return self._of_run(parts[2], runs[parts[2]], parts[3], query)

    def _press(self, run: Path, button: str, query: dict[str, str]) -> dict[str, bool]:
        if button == "stop":
            stop(run)
            return {"stopping": True}
        if button != "resume":
            raise Missing("there is no such page")
        if trainer_of(run) is not None or self._goes_on(run):
            raise FastganError("a process of yours trains here already")
        steps = query.get("steps", "")
        if not steps.isdecimal():
            raise FastganError(f"{steps!r} is no step to go on to")
        self.trainings[run] = Training(run, int(steps), trust=self.trust)
        return {"going_on": True}

    def _goes_on(self, run: Path) -> bool:
        return run in self.trainings and self.trainings[run].running

    def _status(self, run: Path) -> dict[str, Any]:
        why = self.trainings[run].why if run in self.trainings else ""
        return {**status(run), "starting": self._goes_on(run), "why": why}

    def _of_run(self, name: str, run: Path, what: str, query: dict[str, str]) -> tuple[str, bytes]:
        if what == "":
            return HTML, _page("run", name, asset("fastgan.ui", "run.html")).encode(
                errors="backslashreplace"
            )
        if what == "status.json":
            return JSON, _json(self._status(run))
        if what == "report":
            return HTML, page.build(read_story(run)).encode(errors="backslashreplace")
        if what == "grid.png":
            newest = [*grids(run).values()][-1:]
            picture = read_grid(newest[0]) if newest else None
            if picture is None:
                raise Missing("no picture yet")
            return PNG, picture[0]
        if what not in ("play.json", "play.png"):
            raise Missing("there is no such page")
        playground = self.playgrounds.setdefault(run, Playground(run, self.trust))
        if what == "play.json":
            return JSON, _json(playground.about())
        image = playground.image(Wish.of(query))
        made = io.BytesIO()
        pictures.save_grid(made, image, padding=0, scale=1)
        return PNG, made.getvalue()


def _summary(name: str, run: Path, about: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    try:
        return {"name": name, "address": f"run/{quote(name, safe='')}/", **about(run)}
    except FastganError as error:
        return {"name": name, "error": str(error)}


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _page(kind: str, title: str, body: str) -> str:
    return document(
        title,
        f"<header><h1>{escape(title)}</h1></header>\n{body}",
        style=asset("fastgan.reports", "report.css") + asset("fastgan.ui", "ui.css"),
        script=asset("fastgan.ui", "ui.js"),
        allows="connect-src 'self'; img-src 'self' blob: data:; frame-src 'self'",
        kind=kind,
    )
