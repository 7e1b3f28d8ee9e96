"""What the original's scripts and notebooks train with, typed from docs/recipes.md.

`RECIPES` has a row for each script: pattern of its cells, images, batch, "rate x epochs" of each
stage, normalisation. The first pattern that matches a cell is its script.
"""

from typing import Any, NamedTuple


class Images(NamedTuple):
    """Resize and centre crop in training, augmentations in their order, and the same of evaluation.

    A resize of one number is that of the shorter side; None leaves images as they are.
    """

    train: tuple[Any, int | None]
    augment: list[dict[str, Any]]
    eval: tuple[Any, int | None]


def rotation(degrees: int) -> dict[str, Any]:
    return {"name": "rotation", "degrees": degrees}


def crop(size: int) -> dict[str, Any]:
    return {"name": "crop", "size": size}


def resized_crop(size: int | None = None, smallest: float = 0.08) -> dict[str, Any]:
    shape = {"scale": [smallest, 1.0], "ratio": [3 / 4, 4 / 3]}
    return {"name": "resized_crop", **shape} | ({} if size is None else {"size": size})


def square(side: int) -> tuple[list[int], None]:
    return [side, side], None


HFLIP, VFLIP = {"name": "hflip", "p": 0.5}, {"name": "vflip", "p": 0.5}
PERSPECTIVE = {"name": "perspective", "distortion": 0.5, "p": 0.5}
PAD_CROP = {"name": "pad_crop", "padding": 4}
AFFINE = {"name": "affine", "degrees": 10, "translate": [0.2, 0.2]}
AS_STORED = (None, None)


def stored(*augment: dict[str, Any]) -> Images:
    return Images(AS_STORED, list(augment), AS_STORED)


def turned(resize: int, size: int, evaluation: Any, *more: dict[str, Any]) -> Images:
    """Resize to a square, rotation 15, crop, flip: T256, T224 and T448 of section 2.8."""
    return Images(square(resize), [rotation(15), crop(size), HFLIP, *more], evaluation)


T256 = turned(272, 256, (256, None))
T224 = turned(230, 224, square(224))
T448_464, T448_456 = turned(464, 448, square(448)), turned(456, 448, square(448))
T448_468 = turned(468, 448, square(448), VFLIP)
PLAIN, FLIP_CROP, CROP_FLIP = stored(), stored(HFLIP, PAD_CROP), stored(PAD_CROP, HFLIP)
DIGITS = stored(PERSPECTIVE, rotation(10))
FASHION = stored(rotation(10), resized_crop(smallest=0.95))
MNIST = Images(square(120), [rotation(10), crop(112), PERSPECTIVE], (112, None))
FASHION_112 = Images((120, None), [HFLIP, AFFINE, resized_crop(112, 0.95)], (112, None))
FRUITS = Images(square(140), [rotation(15), resized_crop(128), HFLIP, VFLIP], (128, None))
MONKEYS = Images(square(320), [rotation(15), resized_crop(300), HFLIP, VFLIP], square(300))
SVHN = Images(([272, 320], 272), [rotation(15), crop(256)], ([272, 320], 256))  # centre first
OXFORD_2L = Images(square(230), [rotation(30), crop(224), HFLIP, VFLIP], square(224))
WHOLE = Images(AS_STORED, [resized_crop(224), HFLIP], (256, 224))  # of the whole photograph
EARLIER = Images(square(136), [rotation(10), crop(128)], (128, None))  # CIFAR100.py's docstring

CONSTANTS = {  # section 1.6
    "none": ([0.0], [1.0]),
    "N-MNIST": ([0.1307], [0.3081]),
    "N-half": ([0.5], [0.5]),
    "N-C100": ([0.507, 0.487, 0.441], [0.267, 0.256, 0.276]),
    "N-IN": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "N-CINIC": ([0.47889522, 0.47227842, 0.43047404], [0.24205776, 0.23828046, 0.25874835]),
}

RECIPES: dict[str, tuple[Images, int, str, str]] = {
    # 2.1 and the supplement's curve
    "mnist/*cnn_*": (PLAIN, 64, "0.01 x 8", "N-MNIST"),
    "curve/*": (PLAIN, 64, "0.01 x 20", "N-MNIST"),
    # 2.3
    "mnist/fashion_mnist_vgg5_*": (FASHION, 100, "0.005 x 200", "N-half"),
    "mnist/*vgg5_*": (DIGITS, 100, "0.005 x 200", "N-MNIST"),
    # 2.4
    "cifar10/cnn_*": (FLIP_CROP, 100, "0.001 x 160", "none"),
    "cifar100/cnn_*": (FLIP_CROP, 200, "0.001 x 160", "none"),
    # 2.5
    "cifar10/vgg19_bn_*": (FLIP_CROP, 100, "0.0001 x 200", "none"),
    "cifar100/vgg19_bn_*": (CROP_FLIP, 200, "0.0001 x 200", "N-C100"),
    # 2.6
    "cifar10*/resnet*_thin_*": (CROP_FLIP, 200, "0.001 x 160", "N-C100"),
    # 4.5
    "cifar10*/densenet_*": (PLAIN, 100, "0.001 x 50", "N-half"),
    "early/*_tutorial_cnn_*": (PLAIN, 4, "0.001 x 2", "N-half"),
    # 2.8
    "transfer/hymenoptera_*": (WHOLE, 4, "0.001 x 25", "N-IN"),
    "transfer/stl10_*": (T256, 24, "0.001 x 20", "N-C100"),
    "transfer/cifar10_*": (T256, 28, "0.001 x 50", "N-C100"),
    "transfer/cifar100_*": (T256, 24, "0.001 x 50", "N-C100"),
    "transfer/cinic10_*": (T448_456, 9, "0.01 x 20, 0.001 x 20", "N-CINIC"),
    "transfer/caltech101_*": (T224, 30, "0.001 x 20", "N-C100"),
    "transfer/fruits360_*": (FRUITS, 224, "0.01 x 20", "N-C100"),
    "transfer/mnist_*": (MNIST, 128, "0.01 x 10, 0.001 x 10", "N-MNIST"),
    "transfer/flowers102_*": (T448_464, 8, "0.001 x 50", "N-C100"),
    "transfer/svhn_*": (SVHN, 28, "0.001 x 50", "N-C100"),
    "transfer/stanford_cars_*": (T448_456, 9, "0.001 x 25, 0.0001 x 25", "N-C100"),
    "transfer/bird225_*": (turned(230, 224, AS_STORED), 24, "0.001 x 25", "N-C100"),
    "docstring/*": (EARLIER, 24, "0.001 x 50", "N-C100"),
    # 2.9
    "notebooks/monkeys10_*": (MONKEYS, 40, "0.01 x 10, 0.01 x 10", "N-C100"),
    "notebooks/caltech101_*": (T224, 64, "0.01 x 5, 0.001 x 5", "N-C100"),
    "notebooks/cifar10*_wide_*": (T256, 56, "0.01 x 5, 0.001 x 5, 0.0001 x 5", "N-C100"),
    "notebooks/fashion_mnist_*": (FASHION_112, 200, "0.01 x 5, 0.001 x 5", "N-half"),
    "notebooks/mnist_*": (MNIST, 128, "0.01 x 10, 0.001 x 10", "N-MNIST"),
    "notebooks/flowers102_resnext50_*": (OXFORD_2L, 64, "0.01 x 10, 0.001 x 30", "N-C100"),
    "notebooks/flowers102_wide_*": (T448_468, 16, "0.01 x 10, 0.001 x 30", "N-C100"),
    "notebooks/stl10_*_lr5e4": (T256, 24, "0.0005 x 20", "N-C100"),
    "notebooks/stl10_*_lr1e3": (T256, 24, "0.001 x 20", "N-C100"),  # 8
    "notebooks/stl10_*_10x512": (T256, 24, "0.001 x 5, 0.0001 x 10", "N-C100"),
    # 6
    "shared/stl10_wide_*": (T256, 24, "0.001 x 5, 0.0001 x 10", "N-C100"),
    "shared/stl10_vit_*": (turned(244, 224, square(224)), 30, "0.0005 x 2", "N-C100"),
    # 7.2
    "progressive/mnist_flatten": (PLAIN, 64, "0.001 x 50", "N-MNIST"),
    "progressive/kmnist_*": (DIGITS, 64, "0.005 x 200", "N-MNIST"),
    "progressive/emnist_digits_*": (DIGITS, 64, "0.005 x 50", "N-MNIST"),
    "progressive/emnist_letters_*": (DIGITS, 50, "0.005 x 200", "N-MNIST"),
    "progressive/qmnist_*": (DIGITS, 64, "0.0008 x 100", "N-MNIST"),
    "progressive/bird225_*": (T224, 16, "0.0008 x 10", "N-C100"),
    "progressive/caltech101_*": (T224, 16, "0.001 x 16", "N-C100"),
    "progressive/stl10_*": (T224, 8, "0.0008 x 50", "N-C100"),
    "progressive/fruits360_*": (T224, 16, "0.0008 x 10", "N-C100"),
}

# 2.8: style and width of the Spinal head on Wide ResNet-101-2, and width on VGG-19 with batch norm,
# always drop-bn: 1024 where a script states one for VGG or its comment asks for a large one.
TRANSFER_HEADS = {
    "stl10": ("drop-bn", 512, 512),
    "cifar10": ("drop-bn", 20, 1024),
    "cifar100": ("drop-bn", 512, 512),
    "cinic10": ("bare", 20, 1024),
    "caltech101": ("bare", 1024, 1024),
    "fruits360": ("bare", 131, 1024),
    "mnist": (None, None, 1024),
    "flowers102": ("bare", 102, 1024),
    "svhn": ("bare", 20, 1024),
    "stanford_cars": ("bare", 196, 1024),
    "bird225": ("drop-bn", 1024, 1024),
}
