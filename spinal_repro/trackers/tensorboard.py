"""TensorBoard: event files in the run folder."""

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from spinal_repro.trackers import TRACKERS, About


@TRACKERS.register("tensorboard")
class TensorBoard:
    """Scalars by epoch; configuration and record as text, the plot as an image."""

    library: ClassVar[str] = "tensorboard"

    def start(self, about: About) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._step = about.epoch
        first = about.epoch + 1 if about.epoch else 0  # readers ignore later epochs of other files
        self._writer = SummaryWriter(str(about.folder / "tensorboard"), purge_step=first)
        if first == 0:
            self._text("config", dict(about.config))
            self._writer.flush()

    def log(self, epoch: int, figures: Mapping[str, float]) -> None:
        self._step = epoch
        for name, value in figures.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def artifact(self, path: Path) -> None:
        if path.suffix == ".png":
            import numpy as np
            from PIL import Image

            pixels = np.asarray(Image.open(path).convert("RGB"))
            self._writer.add_image(path.stem, pixels, self._step, dataformats="HWC")
        else:
            self._text(path.stem, json.loads(path.read_text()))

    def close(self, outcome: Mapping[str, float] | None) -> None:
        for name, value in (outcome or {}).items():
            self._writer.add_scalar(name, value, self._step)
        self._writer.close()

    def _text(self, name: str, value: object) -> None:
        text = textwrap.indent(json.dumps(value, indent=1), "    ")  # a code block in Markdown
        self._writer.add_text(name, text, self._step)
