"""Runs an hour: a sweep of seeds against the same commands one after another.

The single commands are issued half before and half after the sweep, so that a drift of the machine
falls on both sides, and with the number of threads that the sweep gives each job: another number
changes last digits. What comes out must be the same: history, test results, predictions, weights.
A few more single runs with all threads say what one run at a time could have done at best.

    python scripts/benchmark_sweep.py --seeds 20 --out sweep.json dataset=mnist data.root=DATA
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from spinal_repro.config import compose
from spinal_repro.errors import UserError
from spinal_repro.files import write_json
from spinal_repro.records import RECORD, read_record, record_files
from spinal_repro.sweep.shares import share, usable_cores

TRAIN = "from spinal_repro.cli.train import main; main()"
SAME = ("identity", "seed", "streams", "data", "selection", "test", "history")


def train(*overrides: str) -> float:
    """Wall-clock seconds of one ``spinal-train`` command.

    Raises:
        SystemExit: where it fails, with what it said.
    """
    started = time.perf_counter()
    command = [sys.executable, "-c", TRAIN, *overrides]
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"spinal-train {' '.join(overrides)} failed:\n{done.stdout}{done.stderr}")
    return seconds


def outcome(record: Path) -> tuple[dict[str, Any], bytes, str]:
    """What must not depend on how a run was started: numbers, predictions, weights."""
    found, folder = read_record(record), record.parent
    with np.load(folder / "predictions.npz") as stored:
        predictions = b"".join(stored[name].tobytes() for name in sorted(stored))
    weights = hashlib.sha256((folder / "best.safetensors").read_bytes()).hexdigest()
    numbers = {key: found[key] for key in SAME}
    return numbers | {"threads": found["environment"]["threads"]}, predictions, weights


def compare(ours: Path, theirs: Path) -> list[str]:
    """Runs below two folders that are not the same in every bit, or not in both."""
    names = {path.relative_to(root) for root in (ours, theirs) for path in record_files(root)}
    return [
        str(name.parent)
        for name in sorted(names)
        if not ((ours / name).is_file() and (theirs / name).is_file())
        or outcome(ours / name) != outcome(theirs / name)
    ]


def measure(seeds: int, overrides: list[str], all_threads: int, root: Path) -> dict[str, Any]:
    """Time both ways below a folder."""
    runtime = compose(overrides).runtime
    shares = share(seeds, runtime, cores=usable_cores())
    quiet = [*overrides, "runtime.progress=none"]

    def single(seed: int, runs: str, *more: str) -> float:
        return train(*quiet, f"seed={seed}", f"runs={root / runs}", *more)

    own = f"runtime.threads={shares.threads}"
    singles = [single(seed, "single", own) for seed in range(seeds // 2)]
    sweep = train(
        "-m", *quiet, f"seed={','.join(map(str, range(seeds)))}", f"runs={root / 'sweep'}"
    )
    singles += [single(seed, "single", own) for seed in range(seeds // 2, seeds)]
    whole = [
        single(seed, "all", f"runtime.threads={usable_cores()}") for seed in range(all_threads)
    ]
    some = read_record(next((root / "sweep").rglob(RECORD)))
    return {
        "overrides": overrides,
        "seeds": seeds,
        "at_once": len(shares.slots),
        "threads": shares.threads,
        "sweep_seconds": sweep,
        "single_seconds": singles,
        "single_seconds_all_threads": whole,
        "sweep_runs_per_hour": 3600 * seeds / sweep,
        "single_runs_per_hour": 3600 * seeds / sum(singles),
        "ratio": sweep / sum(singles),
        "ratio_all_threads": sweep / seeds / (sum(whole) / len(whole)) if whole else None,
        "different": compare(root / "sweep", root / "single"),
        "environment": some["environment"],
        "load": os.getloadavg(),
    }


def main() -> None:
    """Measure, print one line, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="of every run, e.g. dataset=mnist head=spinal")
    parser.add_argument("--seeds", type=int, default=20, help="runs each way (default: 20)")
    parser.add_argument("--all-threads", type=int, default=2, help="more single runs (default: 2)")
    parser.add_argument("--out", type=Path, help="where the JSON goes; else it is printed")
    given = parser.parse_args()
    if given.seeds < 2:
        parser.error("--seeds must be 2 or more")
    try:
        with tempfile.TemporaryDirectory(prefix="sweep-") as place:
            found = measure(given.seeds, given.overrides, given.all_threads, Path(place))
    except UserError as error:
        sys.exit(str(error))
    if given.out is not None:
        write_json(given.out, found)
    else:
        print(json.dumps(found, indent=1))
    same = "records identical" if not found["different"] else f"DIFFERENT: {found['different']}"
    print(
        f"{given.seeds} seeds, {found['at_once']} at a time, {found['threads']} thread(s) each: "
        f"{found['sweep_runs_per_hour']:.1f} runs/hour against "
        f"{found['single_runs_per_hour']:.1f} one at a time, "
        f"{found['ratio']:.2f} of the time; {same}"
    )
    sys.exit(bool(found["different"]))


if __name__ == "__main__":
    main()
