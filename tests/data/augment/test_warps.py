"""The batched warps against torchvision's own transforms on PIL images."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from helpers.composing import composed
from PIL import Image
from torch import Tensor
from torchvision import transforms as tv
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tvf

from spinal_repro.data.augment import (
    Affine,
    Augmentation,
    Perspective,
    ResizedCrop,
    Rotation,
    build_augmentations,
    homography,
)
from spinal_repro.data.sources import load_dataset
from spinal_repro.errors import UserError

SIGMAS = 5  # tolerance of statistical tests, in standard errors
ROUNDED_TWICE = 1.02  # PIL rounds after the rows and again after the columns
IDENTITY_TOLERANCE = 0.005  # float32 coordinates are off by about 1e-6 of a pixel


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int, size: int = 28, channels: int = 1) -> Tensor:
    shape = (count, channels, size, size)
    return torch.randint(0, 256, shape, generator=seeded(99), dtype=torch.uint8)


def digits() -> Tensor:
    return load_dataset(composed("dataset=digits").dataset, "unused").test.images


@pytest.fixture(params=["noise", "digits", "mnist"])
def images(request: pytest.FixtureRequest) -> Tensor:
    """100 images ``[100, 1, H, W]`` uint8: noise, where every pixel counts, and real digits."""
    if request.param == "mnist":
        folder = request.getfixturevalue("real_data")
        return load_dataset(composed("dataset=mnist").dataset, folder).test.images[:100]
    return digits()[:100] if request.param == "digits" else noise(100, 27)


def to_pil(image: Tensor) -> Image.Image:
    return Image.fromarray(image[0].numpy())


def from_pil(images: Iterable[Image.Image]) -> Tensor:
    return torch.stack([torch.from_numpy(np.asarray(i).copy()).unsqueeze(0) for i in images])


def corners(size: int) -> Tensor:
    far = size - 1
    return torch.tensor([[0, 0], [far, 0], [far, far], [0, far]], dtype=torch.float64)


def matrices(coefficients: Tensor) -> Tensor:
    ones = torch.ones(len(coefficients), 1, dtype=torch.float64)
    return torch.cat([coefficients.double(), ones], dim=1).view(-1, 3, 3)


def end_points(coefficients: Tensor, size: int) -> Tensor:
    """The new place of each corner ``[N, 4, 2]``, from the map from output to input pixels."""
    start = torch.cat([corners(size), torch.ones(4, 1)], dim=1).T
    ends = torch.linalg.solve(matrices(coefficients), start.expand(len(coefficients), 3, 4))
    ends = (ends[:, :2] / ends[:, 2:]).transpose(1, 2)
    assert (ends - ends.round()).abs().max() < 1e-3, "corners move by whole pixels"
    return ends.round()


def pil_perspective(image: Image.Image, ends: Tensor, interpolation: str) -> Image.Image:
    start = corners(image.width).int().tolist()
    return tvf.perspective(image, start, ends.int().tolist(), InterpolationMode(interpolation))


def pil_resized_crop(image: Image.Image, box: Tensor, side: int) -> Image.Image:
    left, top, width, height = box.int().tolist()
    return tvf.resized_crop(image, top, left, height, width, [side, side])


# Same parameters, same image


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_perspective_agrees_with_pil(images: Tensor, interpolation: str) -> None:
    size = images.shape[-1]
    perspective = Perspective(distortion=0.5, p=1, interpolation=interpolation)
    parameters = perspective.draw(len(images), size, seeded())
    ours = perspective.apply(images.float(), parameters)
    ends = end_points(parameters, size)
    assert len({tuple(e.flatten().tolist()) for e in ends}) > 90
    pairs = zip(map(to_pil, images), ends, strict=True)
    theirs = from_pil(pil_perspective(image, end, interpolation) for image, end in pairs)
    assert (theirs != images).float().mean() > 0.1, "the reference must move pixels"
    excess = ours - theirs.float()  # PIL drops the fraction; at the very border rounding decides
    assert ((excess < -0.001) | (excess > 1.001)).float().mean() < 0.002


@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5, 0.9])
def test_bicubic_has_the_kernel_of_pil(shift: float) -> None:
    """Cubic convolution with a = -1: 1 - 2|t|^2 + |t|^3, then 4 - 8|t| + 5|t|^2 - |t|^3."""
    images = torch.full((2, 1, 9, 9), 100.0)
    images[0, 0, :, 4] = images[1, 0, 4] = 200  # a column, a row
    moves = torch.tensor([[1, 0, shift, 0, 1, 0, 0, 0], [1, 0, 0, 0, 1, shift, 0, 0]])
    column, row = Perspective(interpolation="bicubic").apply(images, moves)[:, 0]
    t = (torch.arange(8) + shift - 4).abs()
    kernel = torch.where(t < 1, 1 - 2 * t**2 + t**3, 4 - 8 * t + 5 * t**2 - t**3) * (t < 2)
    expected = (100 + 100 * kernel).expand(9, 8)
    torch.testing.assert_close(column[:, :8], expected, rtol=0, atol=IDENTITY_TOLERANCE)
    torch.testing.assert_close(row[:8].T, expected, rtol=0, atol=IDENTITY_TOLERANCE)


@pytest.mark.parametrize("degrees", [10, 180])
def test_rotation_agrees_with_pil(images: Tensor, degrees: float) -> None:
    rotation = Rotation(degrees=degrees)
    parameters = rotation.draw(len(images), images.shape[-1], seeded())
    ours = rotation.apply(images.float(), parameters)
    angles = torch.rad2deg(parameters[:, 0]).tolist()
    theirs = from_pil(map(tvf.rotate, map(to_pil, images), angles))
    # PIL computes in 16-bit fixed point, so a source between two pixels may differ
    assert (ours != theirs).float().mean() < 1e-3


def test_affine_agrees_with_torchvision() -> None:
    images, affine = torch.rand(30, 1, 28, 28), Affine(degrees=10, translate=[0.2, 0.1])
    drawn = affine.draw(30, 28, seeded())
    assert drawn[:, 1].abs().max() <= 6 and drawn[:, 2].abs().max() <= 3
    assert torch.equal(drawn[:, 1:], drawn[:, 1:].round())
    ours = affine.apply(images, drawn)
    for image, after, (angle, right, down) in zip(images, ours, drawn.tolist(), strict=True):
        shift = [int(right), int(down)]
        expected = tvf.affine(image, -math.degrees(angle), shift, 1.0, [0.0])
        assert (after != expected).float().mean() < 0.01  # a pixel on an edge may differ
    drawn[:, 1:] = 0
    turned = Rotation(degrees=10).apply(images, drawn)
    assert torch.equal(affine.apply(images, drawn), turned)


@pytest.mark.parametrize(
    "options", [{"scale": (0.95, 1)}, {}, {"scale": (1.0, 1.0), "ratio": (0.5, 0.6)}]
)
def test_resized_crop_agrees_with_pil(images: Tensor, options: dict[str, Any]) -> None:
    crop = ResizedCrop(**options)
    parameters = crop.draw(len(images), images.shape[-1], seeded())
    ours = crop.apply(images.float(), parameters)
    boxes = zip(map(to_pil, images), parameters, strict=True)
    theirs = from_pil(pil_resized_crop(image, box, images.shape[-1]) for image, box in boxes)
    assert (ours - theirs.float()).abs().max() < ROUNDED_TWICE


@pytest.mark.parametrize("side", [224, 128, 64, 32])
def test_a_crop_that_shrinks_is_antialiased_as_by_pil(side: int) -> None:
    """The whole image and four boxes; without antialias they differ by tens of levels."""
    images, crop = noise(5, 256), ResizedCrop(size=side, antialias=True)
    boxes = crop.draw(5, 256, seeded())
    boxes[0] = torch.tensor([0, 0, 256, 256])
    ours = crop.apply(images.float(), boxes)
    pairs = zip(map(to_pil, images), boxes, strict=True)
    theirs = from_pil(pil_resized_crop(image, box, side) for image, box in pairs).float()
    assert (ours - theirs).abs().max() < ROUNDED_TWICE
    plain = ResizedCrop(size=side).apply(images.float(), boxes)
    assert (plain - theirs).abs().max() > 20


@pytest.mark.parametrize(
    ("choice", "interpolation"),
    [
        (["dataset=kmnist", "model=arch2", "head=arch2"], "bicubic"),
        (["dataset=qmnist", "recipe=arch2_committed"], "bicubic"),
        (["dataset=mnist", "recipe=transfer"], "bicubic"),
        (["dataset=kmnist", "model=vgg5", "recipe=progressive"], "bilinear"),
    ],
    ids=str,
)
def test_scripts_of_2020_warped_bicubically(choice: list[str], interpolation: str) -> None:
    """The default of torchvision up to 0.7; 0.8 of October 2020 has bilinear (Q25)."""
    made = build_augmentations(composed(*choice).recipe.augment)
    (warp,) = (a for a in made if isinstance(a, Perspective))
    assert warp.interpolation == interpolation


def test_recipes_have_the_options_of_torchvision() -> None:
    entries = composed("dataset=mnist", "model=vgg5").recipe.augment
    perspective, rotation = build_augmentations(entries)
    warp = tv.RandomPerspective()
    assert vars(perspective) == {
        "distortion": warp.distortion_scale, "p": warp.p, "interpolation": "bicubic",
    }  # fmt: skip
    assert vars(rotation) == {"degrees": tv.RandomRotation(10).degrees[1]}
    entries = composed("dataset=fashion_mnist", "model=vgg5").recipe.augment
    _, crop = build_augmentations(entries)
    box = tv.RandomResizedCrop(28, scale=(0.95, 1))
    assert isinstance(crop, ResizedCrop) and crop.scale == tuple(box.scale)
    assert crop.ratio == pytest.approx(box.ratio)


# Distributions of the parameters


def assert_same_distribution(ours: list[Any], theirs: list[Any]) -> None:
    """Each outcome is as frequent in both samples, within its standard error."""
    first, second = Counter(ours), Counter(theirs)
    for outcome in first | second:
        pooled = (first[outcome] + second[outcome]) / (len(ours) + len(theirs))
        error = math.sqrt(pooled * (1 - pooled) * (1 / len(ours) + 1 / len(theirs)))
        difference = first[outcome] / len(ours) - second[outcome] / len(theirs)
        assert abs(difference) <= SIGMAS * error, (outcome, difference, error)


def test_corner_moves_are_distributed_as_in_torchvision() -> None:
    size, distortion = 27, 0.6
    drawn = Perspective(distortion=distortion, p=1).draw(20_000, size, seeded())
    ours = (end_points(drawn, size) - corners(size)).reshape(-1, 8)
    torch.manual_seed(0)
    ends = [tv.RandomPerspective.get_params(size, size, distortion)[1] for _ in range(2000)]
    theirs = (torch.tensor(ends, dtype=torch.float64) - corners(size)).reshape(-1, 8)
    for column in range(8):
        assert set(ours[:, column].tolist()) == set(theirs[:, column].tolist())
        assert_same_distribution(ours[:, column].tolist(), theirs[:, column].tolist())
    correlation = torch.corrcoef(ours.T) - torch.eye(8)
    assert correlation.abs().max() < SIGMAS / math.sqrt(len(ours)), "moves are independent"


def test_a_share_p_of_the_images_is_warped() -> None:
    drawn = Perspective(p=0.3).draw(10_000, 28, seeded())
    moved = (drawn != torch.tensor([1.0, 0, 0, 0, 1, 0, 0, 0])).any(dim=1).float().mean()
    assert abs(moved - 0.3) < SIGMAS * math.sqrt(0.3 * 0.7 / 10_000)


def test_angles_are_uniform() -> None:
    count = 10_000
    drawn = Rotation(degrees=10).draw(count, 28, seeded())
    angles = torch.rad2deg(drawn[:, 0]).sort().values
    assert angles[0] >= -10 and angles[-1] <= 10 * (1 + 1e-6)
    distance = (angles / 20 + 0.5 - torch.arange(count) / count).abs().max()
    assert distance < 2.0 / math.sqrt(count)  # Kolmogorov-Smirnov; exceeded in 0.07 % of draws


@pytest.mark.parametrize("shape", [(8, 8), (5, 9)])
def test_boxes_are_distributed_as_in_torchvision(shape: tuple[int, int]) -> None:
    """Of squares, and of whole photographs by their height and width."""
    scale, ratio = (0.08, 1.0), (3 / 4, 4 / 3)
    size = shape[0] if shape[0] == shape[1] else torch.tensor(shape)
    boxes = ResizedCrop(scale=scale, ratio=ratio).draw(50_000, size, seeded()).int()
    image = Image.new("L", shape[::-1])
    torch.manual_seed(0)
    theirs = []
    for _ in range(5000):
        top, left, height, width = tv.RandomResizedCrop.get_params(image, list(scale), list(ratio))
        theirs.append((left, top, width, height))
    assert_same_distribution(list(map(tuple, boxes.tolist())), theirs)


@pytest.mark.parametrize("shape", [(28, 28), (20, 31), (40, 13)])
@pytest.mark.parametrize(
    ("scale", "ratio"), [((1, 1), (0.5, 0.6)), ((1, 1), (1.3, 1.4)), ((2, 2), (3 / 4, 4 / 3))]
)
def test_fallback_is_that_of_torchvision(
    scale: tuple[float, float], ratio: tuple[float, float], shape: tuple[int, int]
) -> None:
    """If no box fits, the largest central one of an allowed ratio is taken."""
    boxes = ResizedCrop(scale=scale, ratio=ratio).draw(3, torch.tensor(shape), seeded())
    image = Image.new("L", shape[::-1])
    top, left, height, width = tv.RandomResizedCrop.get_params(image, list(scale), list(ratio))
    assert boxes.tolist() == [[left, top, width, height]] * 3


# Properties of every augmentation


def ident(augmentation):
    options = "-".join(str(value) for value in vars(augmentation).values())
    return f"{type(augmentation).__name__}-{options}"


@pytest.mark.parametrize(
    "augmentation",
    [
        Perspective(), Perspective(interpolation="bicubic"), Rotation(degrees=10), ResizedCrop(),
        ResizedCrop(size=20, antialias=True),
    ],
    ids=ident,
)  # fmt: skip
def test_images_and_channels_are_warped_each_on_its_own(augmentation: Augmentation) -> None:
    images = noise(1, channels=3).float().repeat(64, 1, 1, 1)
    original = images.clone()
    parameters = augmentation.draw(64, 28, seeded())
    batch = augmentation.apply(images, parameters)
    side = augmentation.size_after(28)
    assert (batch.shape, batch.dtype) == ((64, 3, side, side), images.dtype)
    assert torch.equal(images, original), "the input must not change"
    assert batch.min() >= 0 and batch.max() <= 255.001
    assert len(batch.flatten(1).unique(dim=0)) > 5
    for i in range(0, 64, 7):
        for channel in range(3):
            part = slice(i, i + 1), slice(channel, channel + 1)
            alone = augmentation.apply(images[part], parameters[i : i + 1])
            torch.testing.assert_close(batch[part], alone, rtol=0, atol=IDENTITY_TOLERANCE)


@pytest.mark.parametrize(
    "augmentation",
    [
        Perspective(p=0),
        Perspective(distortion=0, p=1),
        Perspective(distortion=0, p=1, interpolation="bicubic"),
        ResizedCrop(scale=(1, 1), ratio=(1, 1)),
        Rotation(degrees=0),
    ],
    ids=ident,
)
def test_identity(augmentation: Augmentation) -> None:
    images = noise(20, 27).float()
    out = augmentation.apply(images, augmentation.draw(20, 27, seeded()))
    torch.testing.assert_close(out, images, rtol=0, atol=IDENTITY_TOLERANCE)
    assert torch.equal(out.round(), images)


@pytest.mark.parametrize("size", [27, 28])
def test_quarter_turns_are_exact_and_counter_clockwise(size: int) -> None:
    images = noise(5, size).float()
    drawn = torch.tensor([[math.pi / 2, 0, 0]]).expand(5, 3)
    turned = Rotation(degrees=180).apply(images, drawn)
    inner = (..., slice(1, -1), slice(1, -1))  # the border may be lost by rounding
    assert torch.equal(turned[inner], torch.rot90(images, 1, dims=(2, 3))[inner])


def test_collapsed_corners_give_the_identity() -> None:
    """From a distortion of about 0.65 three corners can be on one line."""
    start = corners(28).expand(2, 4, 2)
    collapsed = torch.tensor([[13.0, 13], [14, 14], [15, 15], [3, 20]], dtype=torch.float64)
    identity = torch.tensor([1.0, 0, 0, 0, 1, 0, 0, 0], dtype=torch.float64)
    ends = torch.stack([collapsed, corners(28)])
    torch.testing.assert_close(homography(start, ends), identity.expand(2, 8))
    parameters = Perspective(distortion=1, p=1).draw(20_000, 28, seeded())
    assert parameters.isfinite().all()
    for interpolation in ("bilinear", "bicubic"):
        widest = Perspective(interpolation=interpolation)
        assert widest.apply(noise(500).float(), parameters[:500]).isfinite().all()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"distortion": 0.5}, r"needs a name.*distortion"),
        ({"name": "perspektive"}, r"no augmentation 'perspektive'; did you mean 'perspective'"),
        ({"name": "perspective", "distortion": 1.5}, r"distortion \(1.5\)"),
        ({"name": "perspective", "interpolation": "nearest"}, "bilinear or bicubic"),
        ({"name": "perspective", "distorsion": 0.5}, r"did you mean 'distortion'"),
        ({"name": "rotation"}, r"degrees"),
        ({"name": "rotation", "degrees": "ten"}, r"degrees.*ten"),
        ({"name": "affine", "degrees": 5, "translate": [2, 0]}, "translate"),
        ({"name": "resized_crop", "scale": [0, 1]}, r"scale.*above 0"),
        ({"name": "resized_crop", "ratio": [2, 1]}, r"ratio"),
        ({"name": "hflip", "p": 2}, "p must"),
        ({"name": "pad_crop", "padding": -1}, "padding"),
        ({"name": "crop", "size": 0}, "size"),
    ],
)
def test_wrong_entries_are_refused(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_augmentations([{"name": "rotation", "degrees": 10}, entry])
