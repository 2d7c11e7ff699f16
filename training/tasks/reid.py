"""How alike two pictures of a person are to networks that tell people apart: losses and scores of Texformer's setting.

Both networks are ResNet-50s that were trained on Market-1501 by others: PCB's (Sun et al., ECCV 2018), whose last stage keeps its resolution, and a plain
one. Their weights are files of their users; only the five stages are read, under torchvision's names, so that any ResNet-50 serves. Nothing in a
file is run: it is read as weights, or refused.

Shape letters: `B` pictures, `C H W` image or map of a stage.

Source: Xu and Loy, 3D human texture estimation from a single image with transformers, ICCV 2021 (Texformer).
"""

from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from manifests.errors import TrainingError
from training.augment import MEAN_RGB, STD_RGB

Kind = Literal["pcb", "plain"]

SIZE_PX: dict[Kind, tuple[int, int]] = {"pcb": (384, 128), "plain": (256, 128)}
LEAST_SHARE = 0.004  # of the map, which a part must fill in both pictures
_BLOCKS, _WIDTHS, _GROWTH = (3, 4, 6, 3), (64, 128, 256, 512), 4
_STAGES = ("layer1", "layer2", "layer3", "layer4")
CPU = torch.device("cpu")
_COUNT = "num_batches_tracked"  # is of no use here, and old files do not tell it
_HINT = "give the state dict of a ResNet-50: torch.save(network.state_dict(), path), under torchvision's names, or with `base.` or `module.` before them"


class ResNet50(nn.Module):
    """The stages of a ResNet-50, frozen, each weight named as torchvision names it.

    Args:
        kind: pcb: 384 x 128 px, the last stage has a stride of 1; plain: 256 x 128 px.
    """

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind = kind
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for stage, (name, num, width) in enumerate(zip(_STAGES, _BLOCKS, _WIDTHS, strict=True)):
            stride = 1 if stage == 0 or (stage == 3 and kind == "pcb") else 2
            blocks = [_Block(channels, width, stride), *(_Block(_GROWTH * width, width, 1) for _ in range(num - 1))]
            channels = _GROWTH * width
            self.add_module(name, nn.Sequential(*blocks))
        self.eval().requires_grad_(requires_grad=False)

    def forward(self, pictures_BCHW: Tensor) -> list[Tensor]:
        """The maps of the four stages, of pictures with values in [0, 1]; they are resized to what the network was trained on."""
        mean_311, std_311 = (pictures_BCHW.new_tensor(value)[:, None, None] for value in (MEAN_RGB, STD_RGB))
        resized = functional.interpolate(pictures_BCHW, SIZE_PX[self.kind], mode="bilinear")
        x = functional.relu(self.bn1(self.conv1((resized - mean_311) / std_311)))
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        maps = []
        for name in _STAGES:
            x = self.get_submodule(name)(x)
            maps.append(x)
        return maps


class _Block(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, _GROWTH * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(_GROWTH * width)
        self.downsample: nn.Module = nn.Identity()
        if channels != _GROWTH * width:
            projection = nn.Conv2d(channels, _GROWTH * width, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(_GROWTH * width))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        return functional.relu(self.bn3(self.conv3(y)) + self.downsample(x))


@lru_cache(maxsize=4)
def read_reid(path: Path, kind: Kind, device: torch.device = CPU) -> ResNet50:
    """Read a network's weights; the same object for the same file and device.

    Args:
        path: a state dict as `torch.save` writes it, alone or as `state_dict` of a checkpoint.
        kind: which of the two it is.
        device: where it runs.

    Raises:
        TrainingError: the file is missing or damaged, holds more than weights, or no ResNet-50.
    """
    try:
        told = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainingError("there are no weights of a re-identification network", where=path, hint=_HINT) from None
    except Exception as error:  # bytes of any file are read as instructions, and may fail in any way
        what = "the file is none of weights, damaged, or holds more than tensors and plain values"
        raise TrainingError(what, where=path, hint=_HINT) from error
    told = told.get("state_dict", told) if isinstance(told, dict) else None
    if not isinstance(told, dict):
        raise TrainingError("the file holds no weights by name", where=path, hint=_HINT)
    weights = {str(name).removeprefix("module.").removeprefix("base."): value for name, value in told.items()}
    with torch.device("meta"):
        network = ResNet50(kind)
    due = [name for name in network.state_dict() if not name.endswith(_COUNT)]
    if missing := [name for name in due if name not in weights]:
        what = f"the file holds no ResNet-50: {len(missing)} of {len(due)} weights are missing, {missing[0]} among them"
        raise TrainingError(what, where=path, hint=_HINT)
    own = {name: value.float() if isinstance(value := weights[name], Tensor) else value for name in due}
    own |= {f"{name}.{_COUNT}": torch.tensor(0) for name, part in network.named_modules() if _counts(part)}
    try:
        network.load_state_dict(own, assign=True)
    except RuntimeError as error:
        said = " ".join(str(error).split())[:200]
        raise TrainingError(f"the weights are of another network: {said}", where=path, hint=_HINT) from error
    if not all(bool(torch.isfinite(value).all()) for value in network.state_dict().values()):
        raise TrainingError("a weight is not a finite number", where=path, hint=_HINT)
    return network.to(device)


def _counts(part: nn.Module) -> bool:
    return isinstance(part, nn.BatchNorm2d)


def feature_distance(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """(B,) mean squared difference of each stage's map, its values scaled to a vector of length 1; summed over stages."""
    apart = [(x - y).square().mean(dim=1) for x, y in zip(_directions(a), _directions(b), strict=True)]
    return torch.stack(apart).sum(dim=0)


def cosine(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """(B,) cosine between the two maps of a stage, mean over stages."""
    alike = [(x * y).sum(dim=1) for x, y in zip(_directions(a), _directions(b), strict=True)]
    return torch.stack(alike).mean(dim=0)


def style_distance(
    a_BCHW: Tensor, b_BCHW: Tensor, a_parts_BHW: Tensor, b_parts_BHW: Tensor, *, num_parts: int
) -> Tensor:
    """(B,) mean squared difference of Gram matrices, summed over parts.

    A Gram matrix is the mean, over a part's places, of the products of channels. A part that fills less than `LEAST_SHARE` of either map
    counts as equal.

    Args:
        a_BCHW: a stage's map of one picture.
        b_BCHW: of the other.
        a_parts_BHW: uint8 part of each pixel, from 1 on, 0 on none; of any size, read at the nearest pixel.
        b_parts_BHW: of the other.
        num_parts: how many there are.
    """
    places = [
        functional.interpolate(parts[:, None].float(), size=maps.shape[2:], mode="nearest")
        for maps, parts in ((a_BCHW, a_parts_BHW), (b_BCHW, b_parts_BHW))
    ]
    total_B = a_BCHW.new_zeros(len(a_BCHW))
    for part in range(1, num_parts + 1):
        on_a, on_b = (place == part for place in places)
        large_B = (on_a.float().mean(dim=(1, 2, 3)) >= LEAST_SHARE) & (on_b.float().mean(dim=(1, 2, 3)) >= LEAST_SHARE)
        apart_B = (_gram(a_BCHW, on_a) - _gram(b_BCHW, on_b)).square().mean(dim=(1, 2))
        total_B = total_B + apart_B * large_B
    return total_B


def _gram(maps_BCHW: Tensor, on_B1HW: Tensor) -> Tensor:
    values_BCN = (maps_BCHW * on_B1HW).flatten(2)
    return values_BCN @ values_BCN.mT / on_B1HW.sum(dim=(1, 2, 3)).clamp(min=1)[:, None, None]


def _directions(maps: list[Tensor]) -> list[Tensor]:
    return [functional.normalize(values.flatten(1), dim=1) for values in maps]
