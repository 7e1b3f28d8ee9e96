"""A mirror on this machine that gives files, and misbehaves when told to."""

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

from spinal_repro.data.catalog import parse_entry


class Mirror:
    """What is served and what was asked for.

    Attributes:
        files: Path to content; a list is served in turn, its last one for good.
        status: Path to HTTP status codes, given in turn before the file is.
        cut: Path to how many bytes are sent before the connection is cut, in turn.
        ranges: Whether Range is understood.
        asked: Paths with the Range header, in order.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.status: dict[str, list[int]] = {}
        self.cut: dict[str, list[int]] = {}
        self.ranges = True
        self.asked: list[tuple[str, str | None]] = []
        self.url = ""
        self.gate = threading.Event()
        self.gate.set()


@contextmanager
def serving() -> Iterator[Mirror]:
    """Serve on a free port of localhost."""
    mirror = Mirror()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, wanted = self.path.lstrip("/"), self.headers.get("Range")
            mirror.asked.append((path, wanted))
            mirror.gate.wait(25)
            if mirror.status.get(path):
                self.send_error(mirror.status[path].pop(0))
                return
            if path not in mirror.files:
                self.send_error(404)
                return
            content, start = mirror.files[path], 0
            if wanted and mirror.ranges:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                if start >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"
                )
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            cuts = mirror.cut.get(path)
            stop = start + cuts.pop(0) if cuts else len(content)
            self.wfile.write(content[start:stop])
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
        mirror.gate.set()
        server.shutdown()
        server.server_close()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def tar_of(files: Mapping[str, bytes], mode: str = "w:gz") -> bytes:
    """A tar archive, links as ``name -> target`` included."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name.partition(" -> ")[0])
            if " -> " in name:
                info.type, info.linkname = tarfile.SYMTYPE, name.partition(" -> ")[2]
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zip_of(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def png(value: int, size: tuple[int, int] = (12, 10)) -> bytes:
    """A small image in one colour."""
    out = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(out, format="PNG")
    return out.getvalue()


def tree(parts: Mapping[str, int], classes: list[str], prefix: str = "") -> dict[str, bytes]:
    """Image files by path: ``parts`` gives the images of each class."""
    return {
        f"{prefix}{part}/{name}/{index}.png": png(20 * label + index)
        for part, count in parts.items()
        for label, name in enumerate(classes)
        for index in range(count)
    }


def entry(about: Mapping[str, object], **node: object):
    """A record of the catalog as its YAML would give it."""
    base = {"title": "Tiny", "source": "mnist", "num_classes": 2}
    return parse_entry({**base, **node, "about": {"state": "auto", **about}}, "tiny")
