"""The command, under torchrun, that is told to stop or killed at a moment that never changes.

    torchrun ... tests/told_job.py WHAT [OVERRIDE ...]

``kill`` ends the process of rank 1 in epoch 3; ``term`` sends torchrun a SIGTERM after epoch 2.
"""

import os
import signal
import sys
import time
from typing import Any

from spinal_repro.cli.train import main
from spinal_repro.training import loop
from spinal_repro.training import run as run_module
from spinal_repro.training.stop import Stop

STEPS = 9  # an epoch

if __name__ == "__main__":
    what, second = sys.argv.pop(1), os.environ["RANK"] == "1"
    steps: list[int] = []
    signals: list[int] = []
    train, save, handle = loop.training_loss, run_module.save_checkpoint, Stop._handle

    def training_loss(*given: Any) -> Any:
        steps.append(1)
        if what == "kill" and second and len(steps) == 2 * STEPS + 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return train(*given)

    def noted(*given: Any) -> None:
        signals.append(1)
        handle(*given)

    def save_checkpoint(folder: Any, model: Any, optimizer: Any, state: Any, is_best: bool) -> None:
        save(folder, model, optimizer, state, is_best)
        if what == "term" and state.epoch == 2 and not signals:
            os.kill(os.getppid(), signal.SIGTERM)  # torchrun, which passes it on
            while not signals:
                time.sleep(0.01)

    loop.training_loss, run_module.save_checkpoint = training_loss, save_checkpoint
    Stop._handle = noted  # type: ignore[method-assign]
    main()
