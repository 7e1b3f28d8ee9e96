"""``spinal compare`` from photographs to the report."""

import csv

import pytest

from spinal_repro.config.compose import compose
from spinal_repro.models.classifier import build_blank

TINY = "dataset=digits data.limit=60 model=cnn recipe.epochs=2 runtime.device=cpu"


@pytest.fixture
def jobs_here(monkeypatch):
    """Run the jobs of a comparison in this process."""
    from spinal_repro.cli import launch
    from spinal_repro.training.resolve import resolved
    from spinal_repro.training.run import run

    def run_jobs(overrides, folders):
        configs = launch.check_jobs(overrides, lambda own: resolved(compose(own)))
        return list(dict.fromkeys(run(config).folder for config in configs))

    monkeypatch.setattr(launch, "run_jobs", run_jobs)


def test_training_and_comparing(call, here, jobs_here):
    ended = call(f"spinal compare {TINY} --heads linear,spinal --seeds 2 runtime.progress=none")
    assert ended.code == 0, ended.err
    (out,) = (here / "compare").glob("digits-*")
    written = {path.name for path in out.iterdir()}
    assert {"report.html", "table.md", "table.csv", "curves.png"} <= written
    assert {"linear.safetensors", "spinal-6-x-8.safetensors"} <= written
    answer = ended.out.strip().splitlines()[-1]
    assert "against Linear" in answer and "2 pairs: undecided" in answer
    page = (out / "report.html").read_text()
    assert answer.replace("<", "&lt;") in page and "REDUCED BUDGET" in page
    assert "http" not in page.partition("<body>")[2]
    rows = list(csv.reader((out / "table.csv").read_text().splitlines()))
    assert [row[0] for row in rows[1:3]] == ["Linear", "Spinal 6 x 8"]

    runs = sorted(map(str, (here / "runs").glob("*/*/s*")))
    again = call("spinal", "compare", *runs, "--out", "again")
    assert again.code == 0 and (here / "again" / "report.html").is_file()


def test_the_fc_head_is_as_large_as_the_spinal_head(here):
    from spinal_repro.cli.compare import _head

    settings = ["dataset=digits", "model=torchvision", "model.name=resnet18"]
    sizes = []
    for own in (_head("fc", settings, ["fc", "spinal"]), ["head=spinal"]):
        config = compose([*settings, *own])
        model = build_blank(config.dataset, config.model, config.head, config.input_size)
        sizes.append(sum(weights.numel() for weights in model.head.parameters()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.005)
    assert _head("fc", ["dataset=digits", "model=cnn"], ["fc", "spinal"]) == ["head=fc"]
    assert _head("fc", settings, ["linear", "fc"]) == ["head=fc"]


def test_each_head_takes_the_options_that_it_has(here):
    from spinal_repro.cli.compare import _head

    words = ["dataset=digits", "model=flatten", "head.hidden=[20]", "head.width=8"]
    heads = ["linear", "fc", "spinal"]
    assert [_head(head, words, heads)[1:] for head in heads] == [
        [],
        ["head.hidden=[20]"],
        ["head.width=8"],
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "give settings"),
        (f"{TINY} nowhere", "give settings"),
        ("nowhere", "no folder nowhere"),
        (f"{TINY} --heads spinal", "two or more heads"),
        (f"{TINY} head=fc", "use --heads"),
        (f"{TINY} seed=1", "use --seeds"),
        (f"{TINY} --heads linear,spinal head.hidden=[20]", "none of the heads"),
        (f"{TINY} --heads linear,spinel", "spinel"),
        (f"{TINY} recipe.epoch=3", "recipe.epochs"),
        (". --seeds 3", "leave them out"),
        (f"{TINY} --folds 1", "2 or more"),
        (f"{TINY} --bogus 1", "--bogus"),
    ],
)
def test_what_makes_no_sense_is_refused(call, here, words, message):
    ended = call(f"spinal compare {words}")
    assert ended.code == 2 and message in ended.err
    assert not (here / "runs").exists() and not (here / "compare").exists()
