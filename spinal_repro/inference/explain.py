"""Grad-CAM (arXiv 1610.02391): the regions of an image that speak for a class, by captum."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from spinal_repro.errors import UserError, check_known
from spinal_repro.inference import Trained, _is_transposed, _read, normalise
from spinal_repro.io import write_atomic

LEAST = 224  # side of the drawing in pixels; smaller images are enlarged


def grad_cam(trained: Trained, path: Path, name: str | None = None) -> tuple[Any, Any, str]:
    """Compute the Grad-CAM of an image file, for a class or, if it is None, for the predicted one.

    Returns the image as the model reads it ``[C, H, W]``, its map ``[H, W]``, and the class.
    """
    try:
        from captum.attr import LayerAttribution, LayerGradCam
    except ImportError as error:
        raise UserError("Grad-CAM needs captum: pip install 'spinal-repro[explain]'") from error
    if name is not None:
        check_known("class", name, trained.classes)
    if isinstance(pixels := _read(trained, path), str):
        raise UserError(f"{path} cannot be read: {pixels}")
    images = normalise(trained, [pixels]).requires_grad_()  # also with a frozen backbone
    layer = _last_maps(trained, images)
    target = int(trained.model(images).argmax()) if name is None else trained.classes.index(name)
    found = LayerGradCam(trained.model, layer).attribute(images, target, relu_attributions=True)
    large = LayerAttribution.interpolate(found, tuple(pixels.shape[1:]), "bilinear")
    return pixels, large[0, 0].detach().cpu().numpy(), trained.classes[target]


def _last_maps(trained: Trained, images: torch.Tensor) -> nn.Module:
    """Find the last layer of the backbone whose output is maps of more than one pixel."""
    called: list[nn.Module] = []
    spatial: list[nn.Module] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        called.append(module)
        is_map = isinstance(output, torch.Tensor) and output.dim() == 4 and output is not images
        if is_map and output[0, 0].numel() > 1:
            spatial.append(module)

    with torch.no_grad(), register_module_forward_hook(keep):
        trained.model(images)
    if not (once := [module for module in spatial if called.count(module) == 1]):
        here = f"model={trained.config.model.name} with {trained.config.input_size} px"
        raise UserError(f"Grad-CAM needs a network with feature maps; {here} has none")
    return once[-1]


def draw_map(trained: Trained, pixels: Any, found: Any, path: Path) -> None:
    """Draw a map in colours over its image, as PNG."""
    from matplotlib import colormaps

    if _is_transposed(trained):
        pixels, found = pixels.transpose(0, 2, 1), found.T
    image = np.broadcast_to(pixels, (3, *found.shape)).transpose(1, 2, 0)
    colours = colormaps["jet"](found / max(found.max(), 1e-12))[..., :3]
    overlay = Image.fromarray(np.uint8((image / 255 + colours) / 2 * 255))
    scale = max(1, -(-LEAST // min(overlay.size)))
    buffer = BytesIO()
    overlay.resize((overlay.width * scale, overlay.height * scale)).save(buffer, "PNG")
    write_atomic(path, buffer.getvalue())
