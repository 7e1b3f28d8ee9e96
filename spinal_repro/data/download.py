"""One file from several mirrors: continued where it was cut, checked before it is believed."""

import gzip
import hashlib
import os
import time
import urllib.error
import urllib.request
import zlib
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import quote, urlsplit

from tqdm import tqdm

from spinal_repro import __version__
from spinal_repro.data.catalog import Entry, File
from spinal_repro.data.verify import wrong_sum
from spinal_repro.errors import UserError

CHUNK = 2**18
TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 3  # at one mirror without any progress
PAUSE = 1.0  # seconds before a busy server is asked again
BUSY = (429, 500, 502, 503, 504)


class _RefusedError(Exception):
    """A mirror does not give the file."""


def mirrors(file: File, entry: Entry) -> list[str]:
    """Where a file may be had, in order: first the institute's own mirror, ``SPINAL_MIRROR``."""
    own = os.environ.get("SPINAL_MIRROR", "").rstrip("/")
    first = [f"{own}/{entry.key}/{quote(file.name)}"] if own else []
    return first + [prefix + quote(file.name) for prefix in entry.about.mirrors]


def download(file: File, entry: Entry, folder: Path) -> Path:
    """Download a file, or continue to.

    Args:
        file: What to download, with the sums it must have.
        entry: Its data set.
        folder: Where to put it; a partial file stays there when all mirrors fail.

    Raises:
        UserError: where no mirror gives the right file, with what each one said.
        OSError: where the disk refuses.
    """
    target, partial = folder / file.name, folder / f"{file.name}.partial"
    if target.is_file() and right(target, file) is None:
        return target
    reasons = []
    for url in mirrors(file, entry):
        for again in (True, False):
            resumed = partial.is_file()
            try:
                _get(url, partial, file)
            except _RefusedError as error:
                reasons.append(f"{url}: {error}")
                break
            wrong = right(partial, file)
            if wrong is None:
                partial.replace(target)
                return target
            partial.unlink()
            if not (resumed and again):  # its beginning may have come from elsewhere
                reasons.append(f"{url}: {wrong}")
                break
    said = "; ".join(reasons)
    raise UserError(
        f"{entry.title} could not be fetched. {said}. Try again later, set SPINAL_MIRROR, or bring "
        f"{file.name} from elsewhere with: spinal data import {entry.name} PATH"
    )


def right(path: Path, file: File) -> str | None:
    """What is wrong with a downloaded file; None where its sums, or its contents', agree."""
    wrong = wrong_sum(path, file)
    if wrong is not None and file.holds is not None and _contents_sum(path) == file.holds:
        return None  # compressed anew by the mirror
    return wrong


def _contents_sum(path: Path) -> str | None:
    digest = hashlib.sha256()
    try:
        with gzip.open(path) as source:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
    except (OSError, EOFError, zlib.error):
        return None
    return digest.hexdigest()


def _get(url: str, partial: Path, file: File) -> None:
    """Append to a partial file until it is whole.

    Raises:
        _RefusedError: where the server does not give it, or stops giving it.
        OSError: where the disk refuses.
    """
    failures, why = 0, "nothing usable was sent"
    while failures < ATTEMPTS:
        before = partial.stat().st_size if partial.is_file() else 0
        try:
            with _open(url, before) as response:
                whole = _append(response, partial, before, file)
        except urllib.error.HTTPError as error:
            if error.code == 416 and before:  # nothing of it lies beyond: not this file
                partial.unlink()
                failures += 1
                continue
            why = f"HTTP {error.code} {error.reason}"
            if error.code not in BUSY:
                raise _RefusedError(why) from error
            failures += 1
            if failures < ATTEMPTS:
                time.sleep(PAUSE)
            continue
        except urllib.error.URLError as error:
            raise _RefusedError(str(error.reason)) from error
        except (HTTPException, TimeoutError, ConnectionError) as error:
            raise _RefusedError(f"{type(error).__name__} {error}".strip()) from error
        if whole:
            return
        why = "the connection was cut"
        failures = failures + 1 if partial.stat().st_size <= before else 0
    raise _RefusedError(why)


def _open(url: str, offset: int) -> HTTPResponse:
    scheme = urlsplit(url).scheme
    if scheme not in ("http", "https"):
        raise _RefusedError(f"a mirror is an http or https address, not {scheme or 'a path'}")
    headers = {"User-Agent": f"spinal-repro/{__version__}", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    request = urllib.request.Request(url, headers=headers)
    response: HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT)
    return response


def _append(response: HTTPResponse, partial: Path, offset: int, file: File) -> bool:
    """Write one response; whether the file is whole with it."""
    ranged = response.status == 206
    if not (
        ranged and (response.headers.get("Content-Range") or "").startswith(f"bytes {offset}-")
    ):
        offset = 0  # the server sends it from its beginning
        if ranged:
            raise _RefusedError("the server sent another part than asked for")
    length = response.headers.get("Content-Length")
    total = offset + int(length) if length and length.isdigit() else None
    limit = 2 * file.bytes + 2**20 if file.bytes else None
    done = offset
    with (
        partial.open("ab" if offset else "wb") as out,
        tqdm(
            total=total, initial=offset, desc=file.name, unit="B", unit_scale=True, disable=None
        ) as bar,
    ):
        while True:
            try:
                chunk = response.read(CHUNK)
            except (HTTPException, OSError):
                return False
            if not chunk:
                return total is None or done >= total
            out.write(chunk)
            done += len(chunk)
            bar.update(len(chunk))
            if limit is not None and done > limit:
                raise _RefusedError(f"sent more than twice the {file.bytes:,} bytes expected")
