"""Feeds damaged files to every reader of outside data and says what came of it.

    python scripts/fuzz.py --inputs 10000            # every reader, or: --readers idx record

A reader passes where each input is either refused in words (`UserError`, or what its docstring
names) or read as exactly what an independent decoder reads. Anything else, and whatever takes
longer than the time limit, is printed and saved below ``--keep``. One process, so that ten thousand
inputs take seconds to minutes. The same seed gives the same inputs.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

Read = Callable[[bytes], Any]
ODD = (b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"NaN ", b"1e99", b"${a}")
LIMIT = 30.0  # seconds for one input, also on a busy machine


@dataclass(frozen=True)
class Reader:
    """One reader of outside data.

    Attributes:
        name: For the table.
        samples: Good files, which are damaged.
        read: Reads one; raises what ``refusals`` names where it refuses.
        same: Whether what was read of these bytes is right.
        refusals: Errors that refuse.
        crafted: Makes bytes that are whole and say something wrong, for half of the inputs.
    """

    name: str
    samples: list[bytes]
    read: Read
    same: Callable[[bytes, Any], bool]
    refusals: tuple[type[BaseException], ...]
    crafted: Callable[[random.Random], bytes] | None = None


@dataclass
class Tally:
    """What came of the inputs of one reader."""

    inputs: int = 0
    refused: int = 0
    read: int = 0
    failures: list[tuple[str, bytes]] = field(default_factory=list)
    seconds: float = 0.0


def damaged(samples: list[bytes], chance: random.Random) -> bytes:
    """A sample with one to four things wrong with it."""
    data = bytearray(chance.choice(samples))
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        if not data:
            break
        at = chance.randrange(len(data))
        if chance.random() < 0.4:
            at = chance.randrange(min(len(data), 128))  # most formats have their sense in front
        kind = chance.randrange(9)
        if kind <= 2:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 3:
            data[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        elif kind == 4:
            del data[at:]
        elif kind == 5:
            data[at:at] = chance.randbytes(chance.choice((1, 4, 64)))
        elif kind == 6:
            del data[at : at + chance.choice((1, 4, 64))]
        elif kind == 7:
            data[at : at + 4] = chance.choice(
                (b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"NaN ")
            )
        else:
            other = chance.choice(samples)
            data[at : at + 64] = other[chance.randrange(len(other) or 1) :][:64]
    return bytes(data)


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeoutError` where what is inside takes longer."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fuzz(reader: Reader, inputs: int, seed: int = 0) -> Tally:
    """Feed damaged samples to one reader."""
    chance, tally, begun = random.Random(f"{reader.name}/{seed}"), Tally(), time.process_time()
    for sample in reader.samples:
        assert reader.same(sample, reader.read(sample)), f"{reader.name}: a good file is misread"
    for _ in range(inputs):
        if reader.crafted is not None and chance.random() < 0.5:
            data = reader.crafted(chance)
        else:
            data = damaged(reader.samples, chance)
        tally.inputs += 1
        try:
            with time_limit(LIMIT), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = reader.read(data)
        except reader.refusals:
            tally.refused += 1
            continue
        except Exception as error:  # what a user would see as a traceback
            tally.failures.append((f"{type(error).__name__}: {error}"[:200], data))
            continue
        tally.read += 1
        try:
            right = reader.same(data, found)
        except Exception as error:  # the reference refuses what the reader took
            tally.failures.append((f"read, but the reference: {error!r}"[:200], data))
            continue
        if not right:
            tally.failures.append(("read as something else", data))
    tally.seconds = time.process_time() - begun
    return tally


def main() -> int:
    """Entry point: exits 0 where every reader passes."""
    from fuzz_readers import READERS

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000, help="a reader (default: 10000)")
    parser.add_argument("--readers", nargs="+", choices=sorted(READERS), default=sorted(READERS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for inputs that fail")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    failed = 0
    print(f"{'reader':12} {'inputs':>8} {'refused':>8} {'read':>8} {'failed':>7} {'CPU s':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for name in given.readers:
            tally = fuzz(READERS[name](Path(folder)), given.inputs, given.seed)
            print(
                f"{name:12} {tally.inputs:8} {tally.refused:8} {tally.read:8} "
                f"{len(tally.failures):7} {tally.seconds:8.1f}",
                flush=True,
            )
            failed += len(tally.failures)
            for (why, _), count in collections.Counter(
                (why.partition("\n")[0], 0) for why, _ in tally.failures
            ).most_common(5):
                print(f"    {count} x {why}")
            if given.keep is not None:
                given.keep.mkdir(parents=True, exist_ok=True)
                for index, (why, data) in enumerate(tally.failures[:20]):
                    (given.keep / f"{name}-{index}").write_bytes(data)
                    (given.keep / f"{name}-{index}.json").write_text(json.dumps({"why": why}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
