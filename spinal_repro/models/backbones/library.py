"""Any network of torchvision or timm as a backbone: its classifier is taken off.

``model=torchvision model.name=resnet18`` and ``model=timm model.name=seresnet50``. What the
classifier is comes from running the network (`surgery.find_classifier`), so a head can never
stand where forward does not pass (Q3).
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spinal_repro.errors import UserError, unknown
from spinal_repro.models.backbones import BACKBONES
from spinal_repro.models.surgery import find_classifier

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Published:
    """Weights as their publisher gives them, and the normalisation they expect."""

    tensors: dict[str, Tensor]
    mean: Sequence[float]
    std: Sequence[float]


class LibraryBackbone(nn.Module):
    """A network without its classifier.

    Grey images are repeated to three channels. In training mode a network with auxiliary outputs
    returns ``(features, [auxiliary features, ...])``, in evaluation mode features alone.

    Attributes:
        num_features: Features that the classifier read.
        aux_features: The same for each auxiliary output; empty for most networks.
        aux_modules: Parts of the network that serve auxiliary outputs only.
        classifier_tensors: Names of the tensors that went with the classifiers.
        mean: Normalisation that the weights expect.
        std: As mean.
        fetch: Gives published weights by their name.
    """

    def __init__(
        self,
        net: nn.Module,
        channels: int,
        image_size: int,
        *,
        what: str,
        fetch: Callable[[str], Published],
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        if channels not in (1, 3):
            raise UserError(f"{what} reads images of 3 channels (or 1, repeated), not {channels}")
        self.net, self.fetch = net, fetch
        self.mean, self.std = list(mean), list(std)
        before = set(net.state_dict())
        place = next(net.parameters())
        blank = torch.zeros(1, 3, image_size, image_size, device=place.device)
        self.aux_modules, self.aux_features = _take_aux_classifiers(net)
        try:
            self.num_features = _take_classifier(net, blank)
            if self.aux_modules:
                _try_training(net, image_size)
        except (RuntimeError, ValueError, AssertionError) as error:
            reason = str(error).splitlines()[0].removesuffix("; give example=")
            hint = "; model.aux=false leaves the auxiliary outputs out" if self.aux_modules else ""
            raise UserError(
                f"{what} cannot be used with images of {image_size} px: {reason}{hint}"
            ) from error
        self.classifier_tensors = before - set(net.state_dict())

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Images ``[N, 1 or 3, H, W]`` to features ``[N, D]``."""
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        output = self.net(images)
        if isinstance(output, tuple):
            return output[0], list(output[1:])
        features: Tensor = output
        return features


def _take_classifier(net: Any, blank: Tensor) -> int:
    """Put nothing in the place of the classifier; return the number of features it read."""
    keeps_aux = getattr(net, "aux_logits", False)
    if keeps_aux:  # evaluation has no such outputs
        net.aux_logits = False
    try:
        slot = find_classifier(net, blank)
    except ValueError:
        if not hasattr(net, "reset_classifier"):
            raise
        net.reset_classifier(0)  # timm: a network without a classifier, or with two
        with torch.no_grad():
            features = net.eval()(blank)
        net.train()
        if features.dim() != 2:
            raise ValueError(f"it gives {list(features.shape)}, not one vector an image") from None
        return int(features.shape[1])
    finally:
        if keeps_aux:
            net.aux_logits = True
    old = net.get_submodule(slot.name)
    if isinstance(old, nn.Sequential):
        del old[slot.start :]
        while len(old) and isinstance(old[-1], nn.Dropout):
            del old[-1]  # dropout before the classifier is the head's affair
    else:
        parent, _, attribute = slot.name.rpartition(".")
        setattr(net.get_submodule(parent), attribute, nn.Identity())
    return slot.in_features


def _take_aux_classifiers(net: nn.Module) -> tuple[list[nn.Module], list[int]]:
    """The same for the auxiliary outputs of GoogLeNet and Inception v3, in forward's order."""
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


def _try_training(net: nn.Module, image_size: int) -> None:
    """Run training mode without computing anything: auxiliary outputs need large enough maps."""
    named = [*net.named_parameters(), *net.named_buffers()]
    meta = {name: tensor.to("meta") for name, tensor in named}
    images = torch.empty(2, 3, image_size, image_size, device="meta")
    torch.func.functional_call(net, meta, (images,))


def _known(library: str, name: str, names: Iterable[str]) -> None:
    if name not in set(names):
        raise unknown(f"{library} model", name, names)


@BACKBONES.register("torchvision")
def torchvision_backbone(
    channels: int, image_size: int, *, name: str, aux: bool = True
) -> LibraryBackbone:
    """A classification network of torchvision.

    Args:
        channels: Channels of the images, 1 or 3.
        image_size: Their side in pixels.
        name: Its name in torchvision, e.g. ``"wide_resnet101_2"``.
        aux: Whether GoogLeNet and Inception v3 have auxiliary outputs in training.

    Raises:
        UserError: for an unknown name, or images that the network cannot process.
    """
    with torch.device("cpu"):  # with PyTorch 2.7 this import fails on "meta"
        from torchvision import models

    _known("torchvision", name, models.list_models(module=models))
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": aux, "init_weights": True}
    if name.startswith("vit_"):
        options["image_size"] = image_size
    net = models.get_model(name, weights=None, **options)

    def fetch(tag: str) -> Published:
        weights = models.get_model_weights(name)
        known = [entry.name for entry in weights]  # DEFAULT is an alias and changes meaning (Q27)
        if tag not in known:
            raise unknown(f"set of torchvision weights for {name}", tag, known)
        chosen = weights[tag]
        tensors = dict(chosen.get_state_dict(progress=False, check_hash=True, weights_only=True))
        preset = chosen.transforms()
        return Published(tensors, preset.mean, preset.std)

    return LibraryBackbone(net, channels, image_size, what=f"torchvision's {name}", fetch=fetch)


@BACKBONES.register("timm")
def timm_backbone(channels: int, image_size: int, *, name: str) -> LibraryBackbone:
    """A classification network of timm.

    Args:
        channels: Channels of the images, 1 or 3.
        image_size: Their side in pixels.
        name: Its name in timm without a tag, e.g. ``"seresnet50"``.

    Raises:
        UserError: for an unknown name, or images that the network cannot process.
    """
    with torch.device("cpu"):  # it imports torchvision
        import timm

    _known("timm", name, timm.list_models())
    settings = timm.get_pretrained_cfg(name)
    # transformers are built for one size; the others take any
    fixed = bool(settings is not None and settings.fixed_input_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options: dict[str, Any] = {"img_size": image_size} if fixed else {}
        net = timm.create_model(name, **options)

    def fetch(tag: str) -> Published:
        known = [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")]
        if tag not in known:
            raise unknown(f"set of timm weights for {name}", tag, known)
        donor = timm.create_model(f"{name}.{tag}", pretrained=True)
        return Published(donor.state_dict(), **_normalisation(donor))

    return LibraryBackbone(
        net,
        channels,
        image_size,
        what=f"timm's {name}",
        fetch=fetch,
        **_normalisation(net),
    )


def _normalisation(net: nn.Module) -> dict[str, Sequence[float]]:
    """Mean and std of a timm network."""
    settings: Any = net.pretrained_cfg
    return {
        "mean": settings.get("mean", IMAGENET_MEAN),
        "std": settings.get("std", IMAGENET_STD),
    }
