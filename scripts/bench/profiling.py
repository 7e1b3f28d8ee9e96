"""Where the bare step spends its time, and what compiling it is worth."""

import os
from typing import Any

from torch.profiler import ProfilerActivity, profile

from bench.cases import Case
from bench.timing import clock, rates, ratio, take_turns
from bench.training import bare_step
from spinal_repro.training.device import compile_model
from spinal_repro.training.engine import evaluate

KINDS = {
    "convolutions": ("conv",),
    "batch norm": ("batch_norm",),
    "pooling": ("pool",),
    "activations": ("relu", "threshold", "gelu"),
    "linear layers": ("addmm", "mm", "linear"),
    "dropout": ("dropout", "bernoulli"),
    "optimizer": ("_fused_", "Optimizer"),
    "casts and copies": ("copy", "contiguous", "_to_copy"),
}


def shares(case: Case, steps: int) -> dict[str, Any]:
    """Shares of the time of the bare step by kind of operation; what is called inside counts."""
    step = bare_step(case, case.run(case.batch_size))
    on_gpu = case.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with case.settings():
        step()
        with profile(activities=activities) as profiler:
            for _ in range(steps):
                step()
    found = dict.fromkeys([*KINDS, "the rest"], 0.0)
    for event in profiler.key_averages():
        seconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        found[_kind(event.key)] += seconds
    total = sum(found.values())
    return {"case": case.name, **{kind: value / total for kind, value in found.items()}}


def _kind(name: str) -> str:
    for kind, parts in KINDS.items():
        if any(part in name for part in parts):
            return kind
    return "the rest"


def compiling(case: Case, at_least: float, repeats: int) -> dict[str, Any]:
    """The bare step as it is and compiled, and the seconds until both programs were made.

    Returns:
        ``warm_up_seconds`` for training and evaluation, without the compiler's cache;
        ``images_to_pay``: images of training after which the time is won back, if ever.
    """
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
    batch, device = case.batch_size, case.device
    plain, run = bare_step(case, case.run(batch)), case.run(batch)
    compile_model(run.model, device)
    compiled = bare_step(case, run)
    started = clock(device)
    compiled()
    evaluate(run.model, run.select, run.autocast)
    warm_up = clock(device) - started
    run.model.train()

    def contestant(step: Any) -> Any:
        def work() -> float:
            started, steps = clock(device), 0
            while clock(device) - started < at_least:
                step()
                steps += 1
            return (clock(device) - started) / (steps * batch)

        return work

    measured = take_turns({"plain": contestant(plain), "compiled": contestant(compiled)}, repeats)
    won = ratio(measured["plain"], measured["compiled"])["median"]
    saved = sorted(measured["plain"])[repeats // 2] * (1 - 1 / won)
    return {
        "case": case.name,
        "warm_up_seconds": warm_up,
        **{name: rates(values) for name, values in measured.items()},
        "ratio": ratio(measured["plain"], measured["compiled"]),
        "images_to_pay": warm_up / saved if saved > 0 else None,
    }
