"""Small runs that between them use every rule, augmentation, head and protocol."""

import dataclasses
from pathlib import Path

from helpers.composing import composed
from torch import nn

from spinal_repro.config.schema import Config

SMALL = [
    "dataset=digits", "data.limit=96", "recipe.epochs=3", "recipe.batch_size=32",
    "recipe.eval_batch_size=40", "runtime.progress=none", "runtime.device=cpu",
    "runtime.threads=1", "runtime.save_every=0",
]  # fmt: skip  # 3 steps an epoch
FC = ["head=fc", "head.hidden=[16]", "head.dropout=[0.3,0.3]"]
AT_28 = "recipe.prepare={train: {resize: 28}, eval: {resize: 28}}"
BILINEAR = "recipe.augment=[{name: perspective}, {name: rotation, degrees: 10}]"
LARGER = "recipe.prepare={train: {resize: 32}, eval: {resize: 28}}"  # leaves a margin to crop
RULES = {
    "constant": "name: {}",
    "redraw": "name: {}",
    "redraw_late": "name: {}, start: 1",
    "divide": "name: {}",
    "divide_at": "name: {}, epochs: [1, 2]",
    "step": "name: {}, step: 1",
}
WARPS = {
    "hflip": "name: {}",
    "vflip": "name: {}",
    "pad_crop": "name: {}, padding: 1",
    "crop": "name: {}, size: 28",
    "perspective": "name: {}",
    "rotation": "name: {}, degrees: 20",
    "affine": "name: {}, degrees: 5, translate: [0.1, 0.1]",
    "resized_crop": "name: {}, size: 28",
}
HEAD_OPTIONS = {
    "fc": ["head.hidden=[16, 12]", "head.dropout=[0.1, 0.2, 0.3]", "head.norm=true"],
    "spinal": ["head.width=8", "head.dropout=0.3", "head.norm=true"],
    "progressive": ["head.width=8", "head.layer_dropout=0.3", "head.norm=true"],
    "arch2": ["model=arch2", AT_28, BILINEAR],
}
HEADS_MORE = {
    "linear": ["head=linear"],
    "spinal, shared": ["head=spinal", "head.width=8", "head.shared=true", "head.dropout=0.2"],
    "spinal, layers used again": ["head=spinal", "head.width=8", "head.order=[1, 2, 2, 3, 2, 3]"],
    "spinal, its own last dropout": ["head=spinal", "head.width=8", "head.output_dropout=0.5"],
}
OTHERS = {
    "on the test part": ["protocol=paper"],
    "the test part watched": ["protocol.watch_test=true"],
    "the head first": ["model.name=everything", "recipe.head_epochs=1"],
    "a frozen backbone": ["model.name=everything", "model.freeze=backbone"],
    "auxiliary outputs": ["model.name=everything", "recipe.label_smoothing=0.1"],
    "stages": ["recipe.stages={2: 0.05, 3: 0.01}"],
    "stages that forget": ["recipe.stages={2: 0.05}", "recipe.best_of_last_stage=true"],
    "bf16": ["model.name=everything", "runtime.precision=bf16"],
    "deterministic": ["model.name=everything", "runtime.deterministic=true"],
}
NETWORKS = {
    "flatten, sgd with momentum": [
        "model=flatten", "head=spinal", "recipe.optimizer=sgd", "recipe.momentum=0.9",
        "recipe.stages={2: 0.5}", "recipe.best_of_last_stage=true",
    ],
    "adam, divide, on test": [
        "head=spinal", "head.dropout=0.3", "protocol=paper", "recipe.lr_rule={name: divide}",
        "recipe.optimizer=adam",
    ],
}  # fmt: skip

VARIETY: dict[str, list[str]] = {
    **{
        f"rule {name}": [f"recipe.lr_rule={{{rule.format(name)}}}", "recipe.lr=0.01", *FC]
        for name, rule in RULES.items()
    },
    **{
        f"augmentation {name}": [
            f"recipe.augment=[{{{warp.format(name)}}}]", *([LARGER] if "size" in warp else []), *FC
        ]
        for name, warp in WARPS.items()
    },
    **{f"head {name}": [f"head={name}", *options] for name, options in HEAD_OPTIONS.items()},
    **{f"head {name}": options for name, options in HEADS_MORE.items()},
    **{name: [*FC, *options] for name, options in OTHERS.items()},
    **NETWORKS,
}  # fmt: skip


class Everything(nn.Module):
    """Dropout, running statistics and an auxiliary output in one small network."""

    def __init__(self, channels: int, image_size: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.2)
        )
        self.num_features = 4 * (image_size - 2) ** 2
        self.aux_features = [self.num_features]

    def forward(self, images):
        features = self.body(images).flatten(1)
        return (features, [features]) if self.training else features


def small(runs: Path, *overrides: str) -> Config:
    """A run of a second; `Everything` must be registered for ``model.name=everything``."""
    return dataclasses.replace(composed(*SMALL, *overrides), runs=str(runs))
