"""Any network of torchvision or timm, without its classifier, as a backbone.

``model=torchvision model.name=resnet18`` and ``model=timm model.name=seresnet50``. The classifier
is found by running the network (`surgery.find_classifier`), so forward always uses the new
head (Q3).
"""

import copy
import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spinal_repro.errors import UserError, check_known
from spinal_repro.models.backbones import BACKBONES
from spinal_repro.models.surgery import evaluation_mode, find_classifier, replace_classifier

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# published weights, and the mean and std that they expect
Published = tuple[dict[str, Tensor], Sequence[float], Sequence[float]]


class LibraryBackbone(nn.Module):
    """A network without its classifier; grey images are repeated to three channels.

    In training mode a network with auxiliary outputs returns ``(features, [auxiliary, ...])``.
    ``aux_features`` are their lengths, ``aux_modules`` the parts of the network that only they
    use, ``classifier_tensors`` the names of the tensors of all classifiers. ``classifier`` is the
    one that was removed, or None, and ``classifier_name`` was its place. ``fetch`` returns
    published weights by their name.
    """

    def __init__(
        self,
        net: nn.Module,
        channels: int,
        image_size: int,
        title: str,
        fetch: Callable[[str], Published],
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        if channels not in (1, 3):
            raise UserError(f"{title} needs images of 3 channels (or 1, repeated), not {channels}")
        self.net, self.fetch = net, fetch
        self.mean, self.std = list(mean), list(std)
        tensors = set(net.state_dict())
        self.aux_modules, self.aux_features = _remove_aux_classifiers(net)
        try:
            self.num_features, self.classifier_name, own = _remove_classifier(net, image_size)
            if self.aux_modules:
                # the training mode, on the meta device: it needs maps of a minimal size
                blank = torch.empty(2, 3, image_size, image_size, device="meta")
                copy.deepcopy(net).to("meta")(blank)
        except (RuntimeError, ValueError, AssertionError) as error:
            reason = str(error).splitlines()[0].removesuffix("; give example=")
            hint = "; model.aux=false removes the auxiliary outputs" if self.aux_modules else ""
            what = f"{title} cannot be used with images of {image_size} px"
            raise UserError(f"{what}: {reason}{hint}") from error
        self.classifier_tensors = tensors - set(net.state_dict())
        vars(self)["classifier"] = own  # not a part of this module

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, list[Tensor]]:
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        output = self.net(images)
        return (output[0], list(output[1:])) if isinstance(output, tuple) else output


def _remove_classifier(net: Any, image_size: int) -> tuple[int, str, nn.Module | None]:
    """Remove the classifier; return the number of features that it read, its name, and itself."""
    blank = torch.zeros(1, 3, image_size, image_size, device=next(net.parameters()).device)
    try:
        location = find_classifier(net, blank)
    except ValueError:
        if not hasattr(net, "reset_classifier"):
            raise
        net.reset_classifier(0)  # timm networks with no classifier, or with two
        with evaluation_mode(net):
            features = net(blank)
        if features.dim() != 2:
            shape = list(features.shape)
            raise ValueError(f"its output is {shape}, not one vector per image") from None
        return int(features.shape[1]), "", None
    start, layers = location.start, net.get_submodule(location.name)
    while start and isinstance(layers[start - 1], nn.Dropout):
        start -= 1  # dropout before the classifier belongs to the head
    location = dataclasses.replace(location, start=start)
    own = replace_classifier(net, location, nn.Identity())
    return location.in_features, location.name, own


def _remove_aux_classifiers(net: nn.Module) -> tuple[list[nn.Module], list[int]]:
    """Remove those of GoogLeNet and Inception v3; return their modules and features."""
    if not getattr(net, "aux_logits", False):
        return [], []
    modules, sizes = [], []
    for name, attribute in (("aux2", "fc2"), ("aux1", "fc2"), ("AuxLogits", "fc")):
        module = getattr(net, name, None)
        if isinstance(module, nn.Module):
            sizes.append(int(getattr(module, attribute).in_features))
            setattr(module, attribute, nn.Identity())
            modules.append(module)
    return modules, sizes


@BACKBONES.register("torchvision")
def torchvision_backbone(
    channels: int, image_size: int, *, name: str, aux: bool = True
) -> LibraryBackbone:
    """Build a network of torchvision; ``aux``: with auxiliary outputs (GoogLeNet, Inception v3)."""
    with torch.device("cpu"):  # with PyTorch 2.7 this import fails on "meta"
        from torchvision import models

    check_known("torchvision model", name, models.list_models(module=models))
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": aux, "init_weights": True}
    if name.startswith("vit_"):
        options["image_size"] = image_size
    net = models.get_model(name, weights=None, **options)

    def fetch(tag: str) -> Published:
        weights = models.get_model_weights(name)
        known = [entry.name for entry in weights]  # without DEFAULT, whose meaning changes (Q27)
        check_known(f"set of torchvision weights for {name}", tag, known)
        chosen = weights[tag]
        tensors = dict(chosen.get_state_dict(progress=False, check_hash=True, weights_only=True))
        preset = chosen.transforms()
        return tensors, preset.mean, preset.std

    backbone = LibraryBackbone(net, channels, image_size, f"torchvision's {name}", fetch)
    if options.get("aux_logits") is False:  # published weights have them all the same
        with torch.device("meta"):
            whole = models.get_model(name, weights=None, aux_logits=True, init_weights=False)
        backbone.classifier_tensors |= set(whole.state_dict()) - set(net.state_dict())
    return backbone


@BACKBONES.register("timm")
def timm_backbone(channels: int, image_size: int, *, name: str) -> LibraryBackbone:
    """Build a network of timm by its name without a tag, e.g. ``"seresnet50"``."""
    with torch.device("cpu"):  # it imports torchvision
        import timm

    plain, _, tag = name.rpartition("/")[2].partition(".")
    known = timm.list_models()
    if tag and plain in known:
        raise UserError(
            f"model.name={name} also names weights: use model.name={plain} model.pretrained={tag}"
        )
    check_known("timm model", name, known)
    settings = timm.get_pretrained_cfg(name)
    options: dict[str, Any] = {}
    if settings is not None and settings.fixed_input_size:  # transformers, built for one size
        options["img_size"] = image_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = timm.create_model(name, **options)

    def fetch(tag: str) -> Published:
        known = [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")]
        check_known(f"set of timm weights for {name}", tag, known)
        donor = timm.create_model(f"{name}.{tag}", pretrained=True)
        return donor.state_dict(), *normalisation(donor)

    def normalisation(net: Any) -> tuple[Sequence[float], Sequence[float]]:
        settings = net.pretrained_cfg
        return settings.get("mean", IMAGENET_MEAN), settings.get("std", IMAGENET_STD)

    return LibraryBackbone(net, channels, image_size, f"timm's {name}", fetch, *normalisation(net))
