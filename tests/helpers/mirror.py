"""An HTTP mirror on this machine, which can fail, and archives to serve."""

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

from spinal_repro.data.catalog import Entry, parse_entry


@dataclass
class Mirror:
    """What is served, and the requests."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    status: dict[str, list[int]] = field(default_factory=dict)  # sent in turn before the file
    cut: dict[str, list[int]] = field(default_factory=dict)  # bytes sent, in turn
    ranges: bool = True  # whether Range is supported
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # paths and Range headers


@contextmanager
def serving() -> Iterator[Mirror]:
    """Serve on a free port of localhost."""
    mirror = Mirror()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, wanted = self.path.lstrip("/"), self.headers.get("Range")
            mirror.asked.append((path, wanted))
            content, start = mirror.files.get(path), 0
            if mirror.status.get(path) or content is None:
                self.send_error(mirror.status[path].pop(0) if mirror.status.get(path) else 404)
                return
            if wanted and mirror.ranges:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                if start >= len(content):
                    self.send_error(416)
                    return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            cuts = mirror.cut.get(path)
            self.wfile.write(content[start : start + cuts.pop(0) if cuts else None])
            self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    mirror.url = f"http://127.0.0.1:{server.server_port}/"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
    try:
        yield mirror
    finally:
        server.shutdown()
        server.server_close()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def tar_of(files: Mapping[str, bytes], mode: str = "w:gz") -> bytes:
    """A tar archive; a name like ``name -> target`` becomes a link."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name.partition(" -> ")[0])
            info.linkname, info.size = name.partition(" -> ")[2], len(content)
            info.type = tarfile.SYMTYPE if info.linkname else tarfile.REGTYPE
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zip_of(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def png(value: int) -> bytes:
    """A small image of one colour."""
    out = io.BytesIO()
    Image.fromarray(np.full((10, 12, 3), value, np.uint8)).save(out, format="PNG")
    return out.getvalue()


def tree(parts: Mapping[str, int], classes: list[str], prefix: str = "") -> dict[str, bytes]:
    """Image files by path; ``parts`` gives the images per class."""
    return {
        f"{prefix}{part}/{name}/{index}.png": png(20 * label + index)
        for part, count in parts.items()
        for label, name in enumerate(classes)
        for index in range(count)
    }


def entry(about: Mapping[str, object]) -> Entry:
    """An entry of the catalog, from its YAML."""
    about = {"state": "auto", **about}
    return parse_entry({"title": "Tiny", "source": "mnist", "about": about}, "tiny")


def with_about(known: Entry, **about: object) -> Entry:
    """An entry with other facts about it."""
    return replace(known, about=replace(known.about, **about))
