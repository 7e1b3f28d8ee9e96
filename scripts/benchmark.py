"""Benchmarks training against a plain loop and against the bare step.

For each network and head, in turn and in one process: (a) a plain loop written from the recipes,
(b) the bare step on one batch that is ready, (c) our loop; on CUDA (b) and (c) also as one CUDA
graph. Besides: augmentation, size of the head,
share of each kind of operation, start-up of the commands and peak memory. Figures are medians with
their range; ratios are taken in each round. ``--page`` measures nothing and writes the tables of
the JSON into the page.

    python scripts/benchmark.py [--quick] [--data DIR] [--out results/benchmark.json]
    python scripts/benchmark.py --out results/benchmark.json --page docs/speed.md [--add FILE]
    python scripts/benchmark.py --parts loops --models cnn vgg5 --heads fc --repeats 7
    python scripts/benchmark.py --parts loops profiles --minutes 1.5 --out benchmark.json
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from bench.cases import HEADS, MODELS, make_case, pairs
from bench.heads import costs
from bench.page import fill
from bench.profiling import shares
from bench.seeds import seeds
from bench.startup import startup
from bench.training import compare_augmentation, compare_loops, peak_memory

from spinal_repro.cli.paper_run import minutes
from spinal_repro.io import write_atomic, write_json
from spinal_repro.records.provenance import describe_environment, git_revision
from spinal_repro.training.device import keep_freed_memory, resolve_device

Rows = list[dict[str, Any]]


def loops(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Compare plain loop, bare step and our loop, for every network, head and precision."""
    combined = pairs(given.models, given.heads)
    graphs = (False, True) if given.at.type == "cuda" else (False,)
    for done, (model, head) in enumerate(combined):
        cases = [
            make_case(model, head, precision, given.at, given.data, graph)
            for precision in given.precisions
            for graph in graphs
        ]
        seconds = _seconds(given, len(combined) - done, len(cases))
        if not all(seconds):
            print(f"{model} {head}: not measured, the {given.minutes:g} minutes are over")
            return
        for row in compare_loops(cases, seconds[0], given.repeats, seconds[1]):
            print(
                f"{model} {head} {row['precision']}{' graph' if 'graph' in row else ''}: "
                + ", ".join(f"{k} {v['median']:,.0f}/s" for k, v in row["rates"].items())
                + f"; c/a {row['loop_to_reference']['median']:.2f}"
                + f", c/b {row['loop_to_bare']['median']:.3f}"
                + f", with evaluation {row['whole_to_bare']['median']:.3f}"
                + f"; of peak {row['share_of_peak']:.1%}; epoch: "
                + ", ".join(f"{name} {share:.1%}" for name, share in row["epoch"].items()),
                flush=True,
            )
            yield row


def _seconds(given: argparse.Namespace, left: int, cases: int) -> tuple[float, float]:
    """Return the seconds of each contestant, and of our loop, in a round of the next network.

    ``--minutes`` divides the time left equally among the networks left and the other parts. Our
    loop gets three times as much as the others: in a few steps, its work once an epoch would
    count too much.
    """
    if given.minutes is None:
        return given.seconds, given.seconds
    share = max(0.0, given.deadline - time.monotonic()) / (left + 1)
    measuring = 0.6 * share / (given.repeats + 1)  # the rest builds models and warms up
    seconds = min(given.seconds, measuring / (4 * cases + 1))
    return seconds, 3 * seconds


def augment(given: argparse.Namespace) -> Rows:
    """Measure making batches, in images a second."""
    cases = [make_case(model, "fc", "fp32", given.at, given.data) for model in given.models]
    return [compare_augmentation(case, given.seconds, given.repeats) for case in cases]


def scaling(given: argparse.Namespace) -> Rows:
    """Measure heads of several sizes."""
    return costs(given.at, given.seconds / 10, given.repeats)


def commands(given: argparse.Namespace) -> Rows:
    """Measure the start of the commands."""
    return startup(2 if given.quick else given.repeats)


def profiles(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure where the bare step spends its time."""
    for model, head in pairs(given.models, ["spinal"]):
        for precision in given.precisions:
            if given.minutes is not None and time.monotonic() > given.deadline:
                return
            case = make_case(model, head, precision, given.at, given.data)
            yield shares(case, 2 if given.quick else 10)


def memory(given: argparse.Namespace) -> Rows:
    """Measure the peak memory of training, each time in a new process."""
    rows = []
    for model, head in pairs(given.models, given.heads):
        for precision in given.precisions:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                megabytes = pool.apply(_memory, (model, head, precision, given.at.type))
            row = {"model": model, "head": head, "precision": precision}
            rows.append({**row, "megabytes": megabytes})
    return rows


def _memory(model: str, head: str, precision: str, device: str) -> float:
    return peak_memory(make_case(model, head, precision, torch.device(device), None), 4)


PARTS: dict[str, Callable[[argparse.Namespace], Iterable[dict[str, Any]]]] = {
    function.__name__: function
    for function in (loops, augment, scaling, profiles, commands, memory, seeds)
}
QUICK = ("loops", "augment", "scaling", "commands")
SETTINGS = ("quick", "repeats", "seconds", "minutes")
PRECISIONS = ("fp32", "tf32", "bf16")


def count(text: str) -> int:
    """Type of an option: a whole number above 0."""
    return int(minutes(str(int(text))))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    rough = f"rough figures of {', '.join(QUICK)} in two minutes"
    parser.add_argument("--quick", action="store_true", help=rough)
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="default: all")
    parser.add_argument("--models", nargs="+", choices=MODELS, help="default: all; quick: cnn vgg5")
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--repeats", type=count, help="rounds (default: 7; --quick, --minutes: 2)")
    parser.add_argument(
        "--seconds", type=minutes, help="of each in a round (default: 5; quick: 0.3)"
    )
    parser.add_argument("--threads", type=count, help="CPU threads (default: PyTorch's choice)")
    parser.add_argument("--device", default="auto", help="as runtime.device")
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=PRECISIONS,
        help="default: tf32 and bf16 on CUDA, else fp32",
    )
    parser.add_argument(
        "--minutes", type=minutes, help="time for loops, profiles and seeds; others take theirs"
    )
    parser.add_argument(
        "--data",
        default=os.environ.get("SPINAL_DATA"),
        help="folder of data sets (default: SPINAL_DATA); without, images are noise",
    )
    parser.add_argument("--out", type=Path, help="write JSON there; parts not measured stay")
    page = "write the tables of --out into this page, between its markers, and measure nothing"
    parser.add_argument("--page", type=Path, metavar="FILE", help=page)
    add = "with --page: add the parts of this file, measured elsewhere, to --out first"
    parser.add_argument("--add", type=Path, metavar="FILE", help=add)
    given = parser.parse_args()
    given.at = resolve_device(given.device)
    given.parts = given.parts or list(QUICK if given.quick else PARTS)
    given.models = given.models or (["cnn", "vgg5"] if given.quick else list(MODELS))
    given.repeats = given.repeats or (2 if given.quick or given.minutes else 7)
    given.deadline = time.monotonic() + 60 * (given.minutes or 0)
    given.seconds = given.seconds or (0.3 if given.quick else 5.0)
    given.precisions = given.precisions or (
        ["tf32", "bf16"] if given.at.type == "cuda" else ["fp32"]
    )
    return given


def main() -> None:
    """Measure, print and write."""
    given = _arguments()
    if given.page is not None:
        out = given.out or Path("results/benchmark.json")
        tables = json.loads(out.read_text())
        if given.add is not None:
            write_json(out, tables := tables | json.loads(given.add.read_text()))
        write_atomic(given.page, fill(given.page.read_text(encoding="utf-8"), tables))
        return
    keep_freed_memory()  # as runs do; the plain loop gains as much
    if given.threads:
        torch.set_num_threads(given.threads)
    measured: dict[str, Any] = {}
    machine = {**describe_environment(given.at), "git": git_revision()}
    if given.out is not None and given.out.is_file():
        measured = json.loads(given.out.read_text())
    suffix = "_cuda" if given.at.type == "cuda" else ""  # both are in one page
    for name in given.parts:
        started, before = time.perf_counter(), os.getloadavg()
        rows: Rows = []
        for row in PARTS[name](given):
            rows.append(row)
            measured[name + suffix] = {
                "rows": rows,
                "machine": machine,
                "settings": {key: getattr(given, key) for key in SETTINGS},
                "load": {"before": before[0], "after": os.getloadavg()[0]},
                "wall_seconds": round(time.perf_counter() - started, 1),
            }
            if given.out is not None:
                write_json(given.out, measured)
        print(f"{name}: {len(rows)} rows in {time.perf_counter() - started:.0f} s", flush=True)
    if given.out is None:
        print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt as error:
        sys.exit(f"benchmark.py: stopped {error}; --out has the rows that were measured")
