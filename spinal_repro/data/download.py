"""Downloading one file from several mirrors, with resume and checksums."""

import os
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from urllib.parse import quote

from tqdm import tqdm

from spinal_repro import __version__
from spinal_repro.data.catalog import Entry, File
from spinal_repro.errors import UserError

CHUNK = 2**18
TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 5  # per mirror
PAUSE = 1.0  # seconds between attempts


def mirrors(file: File, entry: Entry) -> list[str]:
    """List the URLs of a file in order: ``SPINAL_MIRROR`` first, then the published ones."""
    own = os.environ.get("SPINAL_MIRROR", "").rstrip("/")
    first = [f"{own}/{entry.key}/{quote(file.name)}"] if own else []
    return first + [prefix + quote(file.name) for prefix in entry.about.mirrors]


def download(file: File, entry: Entry, folder: Path) -> Path:
    """Download a file into a folder; a partial file stays there and is resumed next time."""
    folder.mkdir(parents=True, exist_ok=True)
    target, partial = folder / file.name, folder / f"{file.name}.partial"
    if target.is_file() and file.checksum_mismatch(target) is None:
        return target
    failures = [] if mirrors(file, entry) else ["no mirror is known"]
    for url in mirrors(file, entry):
        if (wrong := _get(url, partial, file)) is None:
            return partial.replace(target)
        failures.append(f"{url}: {wrong}")
    other = f"get {file.name} elsewhere and run: spinal data import {entry.name} PATH"
    why = f"{entry.title} could not be fetched. {'; '.join(failures)}"
    raise UserError(f"{why}. Try again later, set SPINAL_MIRROR, or {other}")


def _get(url: str, partial: Path, file: File) -> str | None:
    """Download from one mirror, resuming a partial file; return why it failed, or None."""
    why: str | None = ""
    for attempt in range(ATTEMPTS):
        time.sleep(PAUSE if attempt else 0)
        resumed = partial.is_file()
        try:
            _append(url, partial, file.name)
            why = file.checksum_mismatch(partial)
            if why is None:
                return None
            partial.unlink()
            if not resumed:  # else retry: the partial file may be from another mirror
                return why
        except urllib.error.HTTPError as error:
            why = f"HTTP {error.code} {error.reason}"
            if error.code == 416:  # the partial file is at least as long as the whole one
                partial.unlink(missing_ok=True)
            elif error.code < 500 and error.code != 429:
                return why
        except urllib.error.URLError as error:
            return str(error.reason)
        except (HTTPException, TimeoutError, ConnectionError) as error:
            why = str(error) or type(error).__name__
    return why


def _append(url: str, partial: Path, name: str) -> None:
    """Request the rest of a partial file; raise `ConnectionError` if the connection is cut."""
    done = partial.stat().st_size if partial.is_file() else 0
    headers = {"User-Agent": f"spinal-repro/{__version__}", "Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        if response.status != 206:  # the server ignores Range and sends the whole file
            done = 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else None
        bar = tqdm(total=total, initial=done, desc=name, unit="B", unit_scale=True, disable=None)
        with partial.open("ab" if done else "wb") as out, bar:
            while chunk := response.read(CHUNK):
                out.write(chunk)
                done += len(chunk)
                bar.update(len(chunk))
    if total is not None and done < total:
        raise ConnectionError("the connection was cut")
