"""The network of airbench94, a record of training on CIFAR-10, to be timed in our loop.

https://github.com/KellerJordan/airbench reaches 94 % in 9.9 epochs, 3.83 s on an A100 without
compilation. Here its time alone counts, so the weights of the first convolution are random instead
of those that whiten the images, and the learning rate is constant. No accuracy is claimed. The
linear layer has a bias, because it is our head ``linear``.
"""

from torch import Tensor, nn

from spinal_repro.models.backbones import BACKBONES, Backbone

FIRST, WIDTHS = 24, (64, 256, 256)
OVERRIDES = [
    "model=cnn", "model.name=airbench", "head=linear", "recipe=sgd", "recipe.name=airbench",
    "recipe.batch_size=1024", "recipe.eval_batch_size=2000", "recipe.label_smoothing=0.2",
    "recipe.lr=0.1", "recipe.momentum=0.85", "recipe.nesterov=true",
    "recipe.augment=[{name: hflip, p: 0.5}, {name: pad_crop, padding: 2}]",
    "recipe.mean=[0.4914, 0.4822, 0.4465]", "recipe.std=[0.2470, 0.2435, 0.2616]",
]  # fmt: skip


class _Scaled(Backbone):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) / 9


@BACKBONES.register("airbench")
def airbench(channels: int, image_size: int) -> Backbone:
    """A fixed 2x2 convolution, then three blocks; 32x32 images give 256 features."""
    whitening = nn.Conv2d(channels, FIRST, 2)
    weight = whitening.weight.detach()
    del whitening.weight
    whitening.register_buffer("weight", weight)
    layers: list[nn.Module] = [whitening, nn.GELU()]
    width = FIRST
    for wide in WIDTHS:
        layers += [nn.Conv2d(width, wide, 3, padding=1, bias=False), nn.MaxPool2d(2)]
        layers += [nn.BatchNorm2d(wide), nn.GELU()]
        layers += [nn.Conv2d(wide, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.GELU()]
        width = wide
    return _Scaled([*layers, nn.MaxPool2d(3)], width)
