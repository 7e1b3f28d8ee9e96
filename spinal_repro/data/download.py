"""One file from several mirrors: continued where it was cut, checked before it is used."""

import gzip
import hashlib
import os
import time
import urllib.error
import urllib.request
import zlib
from http.client import HTTPException
from pathlib import Path
from urllib.parse import quote

from tqdm import tqdm

from spinal_repro import __version__
from spinal_repro.data.catalog import Entry, File
from spinal_repro.data.verify import wrong_sum
from spinal_repro.errors import UserError

CHUNK = 2**18
TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 5  # at one mirror
PAUSE = 1.0  # seconds before a mirror is asked again
CUT = (HTTPException, TimeoutError, ConnectionError)


def mirrors(file: File, entry: Entry) -> list[str]:
    """Where a file may be had, in order: first the institute's own mirror, ``SPINAL_MIRROR``."""
    own = os.environ.get("SPINAL_MIRROR", "").rstrip("/")
    first = [f"{own}/{entry.key}/{quote(file.name)}"] if own else []
    return first + [prefix + quote(file.name) for prefix in entry.about.mirrors]


def download(file: File, entry: Entry, folder: Path) -> Path:
    """Download a file, or continue to.

    Args:
        file: What to download, with the checksums it must have.
        entry: Its data set.
        folder: Where to put it; a partial file stays there when all mirrors fail.

    Raises:
        UserError: where no mirror gives the right file, with what each one said.
        OSError: where the file cannot be written.
    """
    target, partial = folder / file.name, folder / f"{file.name}.partial"
    if target.is_file() and right(target, file) is None:
        return target
    said = []
    for url in mirrors(file, entry):
        wrong = _get(url, partial, file)
        if wrong is None:
            return partial.replace(target)
        said.append(f"{url}: {wrong}")
    raise UserError(
        f"{entry.title} could not be fetched. {'; '.join(said)}. Try again later, set "
        f"SPINAL_MIRROR, or bring {file.name} from elsewhere with: spinal data import "
        f"{entry.name} PATH"
    )


def right(path: Path, file: File) -> str | None:
    """What is wrong with a downloaded file; None where its checksum, or its contents', agrees."""
    wrong = wrong_sum(path, file)
    if wrong is not None and file.holds is not None:  # the mirror may have compressed it again
        try:
            with gzip.open(path) as source:
                found = hashlib.file_digest(source, "sha256").hexdigest()
        except (OSError, EOFError, zlib.error):
            return wrong
        return None if found == file.holds else wrong
    return wrong


def _get(url: str, partial: Path, file: File) -> str | None:
    """Continue a partial file until it is the right one; otherwise, why this mirror failed."""
    why = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE)
        continued = partial.is_file()
        try:
            _append(url, partial, file.name)
            wrong = right(partial, file)
        except urllib.error.HTTPError as error:
            why = f"HTTP {error.code} {error.reason}"
            if error.code == 416:  # the partial file is as long as the whole one, or longer
                partial.unlink(missing_ok=True)
            elif error.code < 500 and error.code != 429:
                return why
            continue
        except urllib.error.URLError as error:
            return str(error.reason)
        except CUT as error:
            why = str(error) or type(error).__name__
            continue
        if wrong is None:
            return None
        partial.unlink()
        if not continued:  # otherwise its beginning may have come from another mirror
            return wrong
        why = wrong
    return why


def _append(url: str, partial: Path, name: str) -> None:
    """Ask for what is missing of a partial file and append it.

    Raises:
        ConnectionError: where less came than announced, and the other errors of `CUT`.
    """
    done = partial.stat().st_size if partial.is_file() else 0
    headers = {"User-Agent": f"spinal-repro/{__version__}", "Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        if response.status != 206:  # the server sends it from its beginning
            done = 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else None
        with (
            partial.open("ab" if done else "wb") as out,
            tqdm(
                total=total, initial=done, desc=name, unit="B", unit_scale=True, disable=None
            ) as bar,
        ):
            while chunk := response.read(CHUNK):
                out.write(chunk)
                done += len(chunk)
                bar.update(len(chunk))
    if total is not None and done < total:
        raise ConnectionError("the connection was cut")
