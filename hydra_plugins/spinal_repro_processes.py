"""The launcher ``processes``: hands all jobs of a sweep over at once.

Hydra takes plugins from the package ``hydra_plugins`` alone, which is why this lies here. It looks
at every module in it whenever any Hydra application starts, so this one imports nothing more.
"""

from collections.abc import Sequence

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


class ProcessLauncher(Launcher):
    """Composes all jobs and gives them to the task function's ``together``."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra gives."""
        self._context, self._config = hydra_context, config
        self._together = task_function.together  # type: ignore[attr-defined]

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Do the jobs; each returns the value that a sweeper may search for."""
        setup_globals()
        raws, returns = [], []
        for overrides in job_overrides:
            raw = self._context.config_loader.load_sweep_config(self._config, list(overrides))
            with open_dict(raw):
                del raw["hydra"]
            raws.append(raw)
            returns.append(JobReturn(overrides=overrides, cfg=raw))
        for back, value in zip(returns, self._together(raws, job_overrides), strict=True):
            back.return_value, back.status = value, JobStatus.COMPLETED
        return returns


ConfigStore.instance().store(
    group="hydra/launcher",
    name="processes",
    node={"_target_": f"{__name__}.ProcessLauncher"},
    provider="spinal_repro",
)
