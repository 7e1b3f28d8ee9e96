"""Before a run: one step on the chosen device and precision, against the CPU in fp32.

It finds what computes nonsense (a broken driver, a faulty kernel, an emulation gone wrong), not
the last digits, which always differ.
"""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spinal_repro.environment import autocast
from spinal_repro.errors import UserError
from spinal_repro.schema import Config

IMAGES = 8
# How far loss and gradient may be off, relative to those of the CPU in fp32. Rounding alone, 2^-9
# in bf16 and 2^-11 where a GPU takes TF32 for convolutions, grows with depth: in bf16 the gradient
# of the CNN is off by 0.04, that of VGG-19 with batch norm by 0.67. One that is missing is off by
# 1, one that has nothing to do with it by 1.4, one of the wrong sign by 2.
TOLERANCES = {"fp32": (0.05, 0.5), "tf32": (0.05, 0.5), "bf16": (0.1, 0.95)}


@dataclass(frozen=True)
class Step:
    """Loss and gradient of one step, on the CPU in double precision; the gradient as one vector."""

    loss: float
    gradient: Tensor


def self_check(config: Config, model: nn.Module, device: torch.device) -> str:
    """Compare one step, unless the run is on the CPU in fp32 or does not want it.

    Dropout is switched off, batch norm takes the batch's statistics; images and labels are
    random. The model is left as it is.

    Args:
        config: Of the run.
        model: In the weights that the run starts from.
        device: On what the run computes.

    Returns:
        What was found, as a line; empty where nothing was compared.

    Raises:
        UserError: where the two differ by more than `TOLERANCES`.
    """
    precision = config.runtime.precision
    if not config.runtime.self_check or (device.type == "cpu" and precision == "fp32"):
        return ""
    generator = torch.Generator().manual_seed(0)
    size = config.input_size
    images = torch.randn(IMAGES, config.dataset.channels, size, size, generator=generator)
    labels = torch.randint(0, config.dataset.outputs, (IMAGES,), generator=generator)
    plain = one_step(model, images, labels, torch.device("cpu"), "fp32")
    chosen = one_step(model, images, labels, device, precision)
    loss, gradient = differences(plain, chosen)
    allowed = TOLERANCES[precision]
    found = (
        f"one step on {device.type} in {precision} against the CPU in fp32: the loss differs by "
        f"{loss:.2g} (at most {allowed[0]:g}), the gradient by {gradient:.2g} (at most "
        f"{allowed[1]:g}), relative to their size"
    )
    if not (loss <= allowed[0] and gradient <= allowed[1]):  # NaN, too, is refused
        raise UserError(
            f"self-check failed: {found}. Use runtime.device=cpu or runtime.precision=fp32; "
            f"runtime.self_check=false trains all the same"
        )
    return f"self-check: {found}"


def one_step(
    model: nn.Module, images: Tensor, labels: Tensor, device: torch.device, precision: str
) -> Step:
    """Loss and gradient of a copy of a model.

    Args:
        model: The classifier, in any mode.
        images: ``[N, C, H, W]``.
        labels: ``[N]``.
        device: Where to compute.
        precision: ``fp32``, ``tf32`` or ``bf16``; whether TF32 is used, `backend_settings` decides.
    """
    twin = copy.deepcopy(model).to(device).eval()
    for module in twin.modules():
        if isinstance(module, _BatchNorm):
            module.train()
    twin.zero_grad()
    with autocast(device, precision)():
        logits = twin(images.to(device))
    loss = F.cross_entropy(logits.float(), labels.to(device))
    loss.backward()
    gradients = [p.grad.flatten().cpu().double() for p in twin.parameters() if p.grad is not None]
    return Step(float(loss.detach()), torch.cat(gradients))


def differences(plain: Step, other: Step) -> tuple[float, float]:
    """How far loss and gradient of a step are off, relative to the plain one's."""
    loss = abs(other.loss - plain.loss) / max(abs(plain.loss), 1e-12)
    size = max(float(plain.gradient.norm()), 1e-12)
    return loss, float((other.gradient - plain.gradient).norm()) / size
