"""One training on several processes, which ``torchrun`` starts: who does which share of it.

A run is the same run on any number of processes. Each of them takes a part of every batch of the
recipe and of every evaluation; sums over processes make of the parts what one process computes.
The first process alone writes. For one process everything here does nothing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from spinal_repro.data.loader import Batches
from spinal_repro.errors import UserError
from spinal_repro.schema import Config

STEP_LIMIT = timedelta(minutes=10)  # for the others to come to the same step
PREPARATION_LIMIT = timedelta(hours=12)  # for the first to download and decode


class LostProcessError(UserError):
    """Another process of the same run ended, or hangs."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: Which one this is, from 0.
        world: How many there are.
        slow: The group for waiting while the first process prepares data; None for one process.
    """

    rank: int = 0
    world: int = 1
    slow: Any = None

    @property
    def first(self) -> bool:
        """Whether this is the process that owns the run folder."""
        return self.rank == 0

    def share(self, start: int, stop: int) -> slice:
        """The part of the positions from start to stop that is this process's own.

        All parts together are the whole, none overlaps, and they differ by one in size at most.
        """
        size = stop - start
        low, high = (size * rank // self.world for rank in (self.rank, self.rank + 1))
        return slice(start + low, start + high)

    def weighted(self, loss: Tensor, mine: int, whole: int) -> Tensor:
        """A mean loss over ``mine`` of the ``whole`` images of a batch, as it is to be descended.

        DistributedDataParallel takes the mean of the gradients over processes; weighted so, that
        is the gradient of the mean over all images, however unequal the parts are.
        """
        return loss if self.world == 1 else loss * (mine * self.world / whole)

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over processes, on each of them; the tensor given is left as it is."""
        if self.world == 1:
            return tensor
        summed = tensor.clone()
        dist.all_reduce(summed)
        return summed

    def assembled(self, values: Tensor, count: int) -> Tensor:
        """Whole numbers ``[count]`` of all processes, each of which has those of its share.

        Args:
            values: ``[M]``, of the positions ``share(0, count)``.
            count: How many there are on all processes together.
        """
        if self.world == 1:
            return values
        whole = torch.zeros(2, count, dtype=torch.int64, device=values.device)
        place = self.share(0, count)
        whole[0, place], whole[1, place] = values, 1
        dist.all_reduce(whole)
        assert bool((whole[1] == 1).all()), "each image must be seen once"
        return whole[0]

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is inside needs all processes.

        Raises:
            LostProcessError: where another one ended while this one waited for it.
        """
        try:
            yield
        except RuntimeError as error:
            if self.world == 1 or not _is_of_another(error):
                raise
            raise LostProcessError(
                f"process {self.rank} of {self.world} lost another one, which ended or hangs (its "
                f"own message says why); the run stands where its last checkpoint does, and the "
                f"same command continues it"
            ) from error

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.world > 1:
            dist.barrier(self.slow)

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """The first process does what is inside before the others: it downloads and decodes."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def gathered(self, value: Any) -> list[Any]:
        """What each process has, in their order; all of them wait for it."""
        if self.world == 1:
            return [value]
        values = [None] * self.world
        dist.all_gather_object(values, value, group=self.slow)
        return values

    def agreed(self, value: Any, what: str) -> Any:
        """A value that all processes must have.

        Raises:
            UserError: where they have not: they do not read the same files.
        """
        values = self.gathered(value)
        if any(other != values[0] for other in values):
            raise UserError(
                f"the processes of this run do not agree on {what} ({values}); the folders of "
                f"data and runs must be on a disk that all of them see"
            )
        return value

    def check(self, config: Config, model: nn.Module, batches: Batches) -> None:
        """Refuse what several processes cannot train together; one can train anything.

        Raises:
            UserError: for a model with batch norm on a CPU, where PyTorch cannot share its
                statistics, or where a batch has fewer images than there are processes; for
                training the head alone at first, or a compiled model.
        """
        if self.world == 1:
            return
        for wanted, key in (
            (config.recipe.head_epochs, "recipe.head_epochs"),
            (config.runtime.compile, "runtime.compile"),
        ):
            if wanted:
                raise UserError(f"{key} is for one process alone; leave it out, or torchrun")
        if not takes_statistics(model):
            return
        if batches.device.type != "cuda":
            raise UserError(
                "this model has batch norm, whose statistics PyTorch shares among processes "
                "on CUDA only; train it in one process, or without batch norm"
            )
        fewest = batches.sizes(len(batches) - 1)[1]
        if fewest < self.world:
            raise UserError(
                f"the last batch holds {fewest} images, fewer than the {self.world} processes, "
                f"and this model has batch norm; use fewer processes"
            )

    def parallel(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model to call in training, which adds up gradients; its parameters are the same ones.

        Batch norm takes its statistics over the whole batch, as in one process.
        """
        if self.world == 1:
            return model
        if takes_statistics(model):
            nn.SyncBatchNorm.convert_sync_batchnorm(model)  # in place, with the same parameters
        own = [device] if device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=own)


ALONE = Ranks()


def takes_statistics(model: nn.Module) -> bool:
    """Whether a model in training mode holds batch norm of any kind that is not frozen."""
    return any(isinstance(module, _BatchNorm) and module.training for module in model.modules())


def processes() -> tuple[int, int, int]:
    """Rank, number of processes and rank on this machine, as ``torchrun`` says."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 0, 1, 0
    return tuple(int(os.environ[key]) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))  # type: ignore[return-value]


def own_device(device: torch.device) -> torch.device:
    """The device of this process: of several GPUs, each process has its own.

    Raises:
        UserError: where there are too few, or the device is none that processes can share.
    """
    _, world, local = processes()
    if world == 1:
        return device
    if device.type == "cuda" and device.index is None:
        if local >= torch.cuda.device_count():
            raise UserError(
                f"process {local} on this machine finds {torch.cuda.device_count()} GPUs; start "
                f"as many processes as there are: torchrun --nproc-per-node=gpu"
            )
        return torch.device("cuda", local)
    if device.type == "cpu":
        return device
    raise UserError(
        f"runtime.device={device} is one device for several processes; leave it out, or use "
        f"runtime.device=cpu"
    )


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """The processes of a run, connected for as long as the context lasts.

    Args:
        device: Of this process.

    Raises:
        LostProcessError: where another one ended while this one waited for it.
    """
    rank, world, _ = processes()
    if world == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=STEP_LIMIT)
    ranks = Ranks(rank, world, dist.new_group(backend="gloo", timeout=PREPARATION_LIMIT))
    with ranks.together():
        yield ranks
    dist.destroy_process_group()  # not after an error: others may never answer


def _is_of_another(error: RuntimeError) -> bool:
    """Whether an error says that a collective operation failed."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()
