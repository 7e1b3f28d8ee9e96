"""Small runs that between them use every rule, augmentation, head, protocol and option.

Those of `VARIETY` have hashes in ``tests/training/same_bits.json``.
"""

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
EVERYTHING = "model.name=everything"
RULES = {"constant": "", "redraw": "", "redraw_late": ", start: 1", "divide": "",
         "divide_at": ", epochs: [1, 2]", "step": ", step: 1"}  # fmt: skip
WARPS = {
    "hflip": "", "vflip": "", "pad_crop": ", padding: 1", "crop": ", size: 28", "perspective": "",
    "rotation": ", degrees: 20", "affine": ", degrees: 5, translate: [0.1, 0.1]",
    "resized_crop": ", size: 28",
}  # fmt: skip
VARIETY: dict[str, list[str]] = {
    **{
        f"rule {name}": [f"recipe.lr_rule={{name: {name}{more}}}", "recipe.lr=0.01", *FC]
        for name, more in RULES.items()
    },
    **{
        f"augmentation {name}": [
            f"recipe.augment=[{{name: {name}{more}}}]", *([LARGER] if "size" in more else []), *FC
        ]
        for name, more in WARPS.items()
    },
    "head fc": ["head=fc", "head.hidden=[16,12]", "head.dropout=[0.1,0.2,0.3]", "head.norm=true"],
    "head spinal": ["head=spinal", "head.width=8", "head.dropout=0.3", "head.norm=true"],
    "head progressive": [
        "head=progressive", "head.width=8", "head.layer_dropout=0.3", "head.norm=true",
    ],
    "head arch2": ["head=arch2", "model=arch2", AT_28, BILINEAR],
    "head linear": ["head=linear"],
    "head spinal, shared": ["head=spinal", "head.width=8", "head.shared=true", "head.dropout=0.2"],
    "head spinal, layers used again": [
        "head=spinal", "head.width=8", "head.order=[1, 2, 2, 3, 2, 3]",
    ],
    "head spinal, its own last dropout": ["head=spinal", "head.width=8", "head.output_dropout=0.5"],
    "on the test part": [*FC, "protocol=paper"],
    "the test part watched": [*FC, "protocol.watch_test=true"],
    "the head first": [*FC, EVERYTHING, "recipe.head_epochs=1"],
    "a frozen backbone": [*FC, EVERYTHING, "model.freeze=backbone"],
    "auxiliary outputs": [*FC, EVERYTHING, "recipe.label_smoothing=0.1"],
    "stages": [*FC, "recipe.stages={2: 0.05, 3: 0.01}"],
    "stages that forget": [*FC, "recipe.stages={2: 0.05}", "recipe.best_of_last_stage=true"],
    "bf16": [*FC, EVERYTHING, "runtime.precision=bf16"],
    "deterministic": [*FC, EVERYTHING, "runtime.deterministic=true"],
    "flatten, sgd with momentum": [
        "model=flatten", "head=spinal", "recipe.optimizer=sgd", "recipe.momentum=0.9",
        "recipe.stages={2: 0.5}", "recipe.best_of_last_stage=true",
    ],
    "adam, divide, on test": [
        "head=spinal", "head.dropout=0.3", "protocol=paper", "recipe.lr_rule={name: divide}",
        "recipe.optimizer=adam",
    ],
}  # fmt: skip

OPTIONS: dict[str, list[str]] = {
    "rule cosine": ["recipe.lr_rule={name: cosine, warmup: 1}", "recipe.lr=0.01", *FC],
    "augmentation color_jitter": [
        *FC, "recipe.augment=[{name: color_jitter, brightness: 0.4, contrast: 0.4}]",
    ],
    "augmentation random_erasing": [*FC, "recipe.augment=[{name: random_erasing}]"],
    "adamw, two rates": [
        EVERYTHING, "recipe.optimizer=adamw", "recipe.momentum=0", "recipe.weight_decay=0.1",
        "recipe.backbone_lr_scale=0.1", "recipe.ema=0.9", "recipe.clip_grad=0.5",
    ],
    "nesterov, mixed and weighted": [
        EVERYTHING, "recipe.optimizer=sgd", "recipe.momentum=0.9", "recipe.nesterov=true",
        "recipe.mixup=0.2", "recipe.cutmix=1.0", "recipe.label_smoothing=0.1",
        "recipe.class_weights=balanced", "recipe.sampler=balanced",
    ],
}  # fmt: skip
ALL = VARIETY | OPTIONS


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
