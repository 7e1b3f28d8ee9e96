"""The Hydra launcher ``processes``. Hydra imports all of ``hydra_plugins``: keep imports light."""

from collections.abc import Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, open_dict


class ProcessLauncher(Launcher):
    """Runs every job of a sweep in its own process."""

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        """Store the config loader and the configuration of the sweep."""
        self._loader, self._config = hydra_context.config_loader, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        """Run the jobs; each returns its selection accuracy, for optimising sweepers."""
        from spinal_repro.cli.sweep import run_jobs

        setup_globals()
        hydra, raws = self._config.hydra, []
        for overrides in job_overrides:
            raws.append(self._loader.load_sweep_config(self._config, list(overrides)))
            with open_dict(raws[-1]):
                del raws[-1]["hydra"]
        options = [o for o in hydra.overrides.hydra if o.lstrip("+").startswith("hydra.searchpath")]
        sources = hydra.runtime.config_sources
        options += [f"--config-dir={s.path}" for s in sources if s.provider == "command-line"]
        jobs = run_jobs(raws, job_overrides, options)
        return [
            JobReturn(list(own), status=JobStatus.COMPLETED, _return_value=job.accuracy)
            for own, job in zip(job_overrides, jobs, strict=True)
        ]


node = {"_target_": f"{__name__}.ProcessLauncher"}
ConfigStore.instance().store(group="hydra/launcher", name="processes", node=node)
