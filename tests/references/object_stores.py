"""As much of Google Cloud Storage and of the Hugging Face hub, on 127.0.0.1, as their clients ask for to copy files."""

from __future__ import annotations

import http.server
import json
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

DATE = "2026-01-01T00:00:00.000Z"


class Store(http.server.BaseHTTPRequestHandler):
    """The files of ``root``, as bucket ``bucket`` and as data set ``me/screen``."""

    root: Path

    def log_message(self, *words: object) -> None:
        pass

    def _send(self, content: bytes, code: int = 200, **headers: str) -> None:
        try:
            self.send_response(code)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
        except BrokenPipeError:
            pass  # the client has what it wants

    def _json(self, value: Any, code: int = 200, **headers: str) -> None:
        self._send(json.dumps(value).encode(), code, Content_Type="application/json", **headers)

    def _file(self, name: str, **headers: str) -> None:
        if not (self.root / name).is_file():
            return self._json({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
        content, asked = (self.root / name).read_bytes(), self.headers.get("Range")
        if asked is None:
            return self._send(content, **headers)
        low, _, high = asked.removeprefix("bytes=").partition("-")
        part = content[int(low) : int(high or len(content)) + 1]
        at = f"bytes {low}-{int(low) + len(part) - 1}/{len(content)}"
        return self._send(part, 206, Content_Range=at, **headers)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._json([entry for name in asked["paths"] for entry in self._entry(name)])

    def _entry(self, name: str) -> list[dict[str, Any]]:
        place = self.root / name
        kind = "file" if place.is_file() else "directory"
        size = place.stat().st_size if place.is_file() else 0
        return [{"type": kind, "path": name, "size": size, "oid": "0" * 40}] if place.exists() else []

    def _object(self, name: str) -> dict[str, Any]:
        size = str((self.root / name).stat().st_size)
        facts = {"kind": "storage#object", "name": name, "bucket": "bucket", "size": size, "generation": "1"}
        return facts | {"metageneration": "1", "updated": DATE, "timeCreated": DATE}

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        path, query = unquote(address.path), parse_qs(address.query)
        if "/storage/v1/b/bucket/o/" in path:
            name = path.partition("/o/")[2]
            media = query.get("alt") == ["media"] or not (self.root / name).is_file()
            return self._file(name) if media else self._json(self._object(name))
        if path.endswith("/storage/v1/b/bucket/o"):
            return self._json(self._listed(query.get("prefix", [""])[0], query.get("delimiter", [""])[0]))
        if "/resolve/main/" in path:
            return self._file(path.partition("/resolve/main/")[2], ETag='"0"', X_Repo_Commit="1" * 40)
        if "/tree/" in path:
            base = self.root / path.partition("/tree/")[2].partition("/")[2]
            found = base.rglob("*") if query.get("recursive") in (["true"], ["True"]) else base.iterdir()
            return self._json([e for p in sorted(found) for e in self._entry(p.relative_to(self.root).as_posix())])
        return self._json(
            {"id": "me/screen", "sha": "1" * 40, "siblings": [], "private": False}, X_Repo_Commit="1" * 40
        )

    def _listed(self, prefix: str, delimiter: str) -> dict[str, Any]:
        names = [p.relative_to(self.root).as_posix() for p in sorted(self.root.rglob("*")) if p.is_file()]
        names = [n for n in names if n.startswith(prefix)]
        deeper = [n for n in names if delimiter and delimiter in n[len(prefix) :]]
        folders = {prefix + n[len(prefix) :].split(delimiter)[0] + delimiter for n in deeper}
        items = [self._object(n) for n in names if n not in deeper]
        return {"kind": "storage#objects", "items": items, "prefixes": sorted(folders)}


def serve(root: Path) -> tuple[http.server.ThreadingHTTPServer, str]:
    """A server of the files of a folder, and its address."""
    handler = type("Served", (Store,), {"root": root})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}"
