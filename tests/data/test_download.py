"""Downloads from mirrors that fail, are resumed and checked."""

import os

import pytest
from helpers import mirror as m

from spinal_repro.data import download as module
from spinal_repro.data.catalog import File
from spinal_repro.data.download import download
from spinal_repro.errors import UserError

PACKED = os.urandom(5000)
FILE = File("file.gz", md5=m.md5(PACKED))
DEAD = "http://127.0.0.1:9/"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.01)
    with m.serving() as mirror:
        mirror.files = {"file.gz": PACKED, "good/file.gz": PACKED}
        yield mirror


def get(folder, *mirrors):
    entry = m.entry({"mirrors": list(mirrors), "files": [{"name": "file.gz"}]})
    return download(FILE, entry, folder).read_bytes()


@pytest.mark.parametrize("status", [403, 404, 503])
def test_the_next_mirror_is_tried(server, tmp_path, status):
    server.status = {"bad/file.gz": [status] * 9}
    mirrors = DEAD, f"{server.url}bad/", f"{server.url}good/"
    assert get(tmp_path, *mirrors) == PACKED
    server.asked.clear()
    assert get(tmp_path, *mirrors) == PACKED and server.asked == []  # kept


def test_one_message_has_the_reason_of_every_mirror(server, tmp_path):
    server.status = {"file.gz": [503, 429, 403]}  # a busy server is asked again
    with pytest.raises(UserError, match=r"HTTP 403.*127\.0\.0\.1:9.*spinal data import tiny PATH"):
        get(tmp_path, server.url, DEAD)
    assert len(server.asked) == 3 and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_connection_is_resumed(server, tmp_path, ranges):
    server.ranges, server.cut = ranges, {"file.gz": [1000, 2000]}
    assert get(tmp_path, server.url) == PACKED
    assert [asked for _, asked in server.asked][:2] == [None, "bytes=1000-"]
    assert len(server.asked) == 3


@pytest.mark.parametrize("beginning", [b"from another mirror", b"x" * 10_000])
def test_a_wrong_beginning_is_discarded(server, tmp_path, beginning):
    (tmp_path / "file.gz.partial").write_bytes(beginning)
    assert get(tmp_path, server.url) == PACKED


@pytest.mark.parametrize("content", [b"<html>log in first</html>", b""])
def test_wrong_bytes_are_refused(server, tmp_path, content):
    server.files["file.gz"] = content
    with pytest.raises(UserError, match="its md5 is"):
        get(tmp_path, server.url)
    assert list(tmp_path.iterdir()) == []
    assert get(tmp_path, server.url, f"{server.url}good/") == PACKED


def test_your_own_mirror_comes_first(server, tmp_path, monkeypatch):
    server.files = {"own/mnist/file.gz": PACKED}
    monkeypatch.setenv("SPINAL_MIRROR", f"{server.url}own/")
    assert get(tmp_path, DEAD) == PACKED
