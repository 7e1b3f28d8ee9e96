"""The Hydra launcher ``processes``. Hydra imports all of ``hydra_plugins``: keep imports light."""

from collections.abc import Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig


class ProcessLauncher(Launcher):
    """Runs every job of a sweep in its own process."""

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        """Store the configuration of the sweep."""
        self._hydra = config.hydra

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
        """Run the jobs; their results are in their run folders."""
        from spinal_repro.cli.launch import run_jobs

        options = [o for o in self._hydra.overrides.hydra if "hydra.searchpath=" in o]
        sources = self._hydra.runtime.config_sources
        options += [f"--config-dir={s.path}" for s in sources if s.provider == "command-line"]
        run_jobs(job_overrides, options)
        return []


node = {"_target_": f"{__name__}.ProcessLauncher"}
ConfigStore.instance().store(group="hydra/launcher", name="processes", node=node)
