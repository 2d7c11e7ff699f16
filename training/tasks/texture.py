"""The texture of a person's whole surface from one picture.

The setting is Texformer's (Xu and Loy, 3D human texture estimation from a single image with transformers, ICCV 2021), as the paper took
it: the decoder is asked with a picture of the texture's atlas, each texel coloured by its place on the body at rest; that picture and the
photo pass through two copies of the pre-trained encoder, trained apart; a linear map of the decoder's tokens and a tanh give the colours of
each patch of the texture; the picture that was seen and a second one of the same person are compared with what the texture looks
like in them, the second with weight 1; scores are SSIM, and LPIPS where its package is installed, of the person alone on black.

On renders, whose every pixel's place on the surface is known, the loss is the mean absolute error of colours at the pixels of the person. On photographs,
where a fitted body is off by some pixels, it is Texformer's, once the weights of a re-identification network are given as `reid`: the distance of its
features (5000) and of the style of seven parts (0.4) between the photo and the texture as it looks there; and, once `textures` are given, how far the face
and the hands are built as those of scanned people (0.01). Their scores come beside ours then.

What is replaced, or left out:

- A render stands before the photo's own background, not before another street of PRW or CUHK-SYSU: nothing but the person differs.
- Parts are those of the body that was fitted; Texformer takes the photo's from a parsing network.
- The face is that half of the head which looks forward; the textures that it is compared with are drawn by the example's key, the same in each epoch.
- The photo comes as RGB without a map of parts as a fourth channel: the pre-trained encoder reads three.
- Images are squares of the network's own size, not 128 x 64, and the texture has 16 x 16 texels for each of its patches, not 128 x 128 in all. The
  re-identification networks see the middle half of a square, which is the whole photo where the dataset is SMPLMarket.

Shape letters: `B` examples, `C H W` image, `T` side of a texture, `N` patches, `E` width of a token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from manifests.errors import TrainingError
from manifests.files import write_bytes
from manifests.seeds import rng_for
from training.examples.base import About, Example
from training.examples.free_surface import body_file
from training.examples.pictures import read_picture
from training.losses import unpatchify
from training.metrics.images import ssim
from training.tasks.atlas import NUM_PARTS, read_atlas
from training.tasks.base import Arrays, Cut, Score, Tensors
from training.tasks.placing import map_in_image
from training.tasks.reid import cosine, feature_distance, read_reid, style_distance
from training.tasks.structure import similarity, structure
from training.views import cut_square, take

SECOND_WEIGHT = 1.0
FIRST_GAIN = 0.01  # of the head's weights
PATCH_TEXELS = 16  # texels along a side of a patch of the atlas
_CONSTANT_TEXELS = 32  # of a constant answer, along a side
OFF = -1.0  # texture coordinates off the person
FEATURE_WEIGHT, STYLE_WEIGHT, STRUCTURE_WEIGHT = 5000.0, 0.4, 0.01  # Texformer's
PHOTO_PX = 128, 64  # at which Texformer scores
_ATLAS_TEXELS = 512  # along a side of the table of parts
_TEXTURE_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, slots=True, kw_only=True)
class Texture:
    """A square of colours in the layout of the body's atlas. Convention: the first row is the top of the atlas, v = 1.

    Args:
        body: file of the body that was rendered, or fitted to photographs; the free one by default.
        uv: OBJ file of its texture coordinates, as smpl_uv.obj, where the body's file has none.
        reid: weights of PCB's network: learn by it instead of by colours, and score it.
        reid_plain: weights of a plain ResNet-50 that tells people apart: score it.
        textures: a picture of a texture, or a folder of them (of SURREAL's, those named nongrey are taken): learn how faces and hands are built.
        lpips: also score LPIPS of AlexNet, by the package `lpips`.
    """

    body: str | None = None
    uv: str | None = None
    reid: str | None = None
    reid_plain: str | None = None
    textures: str | None = None
    lpips: bool = False

    name: ClassVar = "texture"
    reads: ClassVar[Literal["query"]] = "query"
    main: ClassVar = "ssim"
    flips: ClassVar = False  # a mirrored person wears another texture
    turns: ClassVar = True

    def check(self, train: Sequence[About], test: About) -> None:
        """Refuse datasets without texture coordinates of two pictures, files that do not read, and LPIPS without its package.

        Raises:
            TrainingError: what is missing.
        """
        for about in (*train, test):
            if missing := {"uv", "second_uv"} - set(about.labels):
                raise TrainingError(
                    f"examples have no labels of {' or '.join(sorted(missing))}",
                    where=f"{about.name}, {about.split}",
                    hint="render people from several sides with uv among the labels: make render RECIPE=free_body",
                )
        if self.lpips:
            _lpips()
        if self.reid:
            read_reid(Path(self.reid), "pcb")
        if self.reid_plain:
            read_reid(Path(self.reid_plain), "plain")
        if self.textures:
            _textures(Path(self.textures))
        if self.body or self.uv or self.reid or self.textures:
            read_atlas(*self._atlas)

    @property
    def _atlas(self) -> tuple[Path, Path | None]:
        return body_file(self.body), Path(self.uv) if self.uv else None

    def query(self, image_px: int) -> npt.NDArray[np.uint8]:
        """The atlas, coloured by places on the body at rest."""
        return read_atlas(*self._atlas).places(image_px)

    def head(self, widths: Sequence[int], num_patches: int) -> nn.Module:  # noqa: ARG002
        """A linear map to the colours of a patch."""
        return _Colours(widths[-1])

    def target(self, example: Example, cut: Cut, about: About) -> Arrays:  # noqa: ARG002
        """Make "own" and "second" (H, W, 3) uint8 colours, "own_uv" and "second_uv" (H, W, 2), -1 off the person.

        The second picture is cut as it stands, without variation. Where textures are given, one of them is "texture" (H, W, 3).
        """
        px = cut.image_px
        target: dict[str, npt.NDArray[Any]] = _seen("own", example.rgb_HW3, example.labels.get("uv"), cut)
        if self.textures:
            files = _textures(Path(self.textures))
            chosen = files[int(rng_for("texture", example.key).integers(len(files)))]
            texture = cv2.resize(read_picture(chosen, where=chosen), (px, px), interpolation=cv2.INTER_AREA)
            target["texture"] = texture.astype(np.uint8)
        square = example.second_square_xyxy_px
        if example.second_HW3 is None or square is None or "second_uv" not in example.labels:
            blank: dict[str, npt.NDArray[Any]] = {
                "second": np.zeros((px, px, 3), np.uint8),
                "second_uv": np.full((px, px, 2), OFF, np.float32),
            }
            return target | blank
        return target | _seen(
            "second", example.second_HW3, example.labels["second_uv"], cut_square(square, image_px=px)
        )

    def loss(self, outputs: Tensor, target: Tensors) -> Mapping[str, Tensor]:
        """Absolute error of colours at the person's pixels, each picture's own mean, then the batch's; or Texformer's terms."""
        terms = {}
        if self.textures:
            terms["structure"] = STRUCTURE_WEIGHT * self._unlike_people(outputs, target["texture"])
        for name, weight in (("own", 1.0), ("second", SECOND_WEIGHT)):
            colours_BCHW, on_B1HW = _truth(target, name)
            if self.reid:
                features_B, style_B = self._unlike_photos(outputs, target[f"{name}_uv"], colours_BCHW, on_B1HW)
                terms[f"{name}_features"] = weight * FEATURE_WEIGHT * features_B.mean()
                terms[f"{name}_style"] = weight * STYLE_WEIGHT * style_B.mean()
                continue
            error_BCHW = (rendered(outputs, target[f"{name}_uv"]) - colours_BCHW).abs() * on_B1HW
            count_B = on_B1HW.sum(dim=(1, 2, 3))
            terms[name] = weight * (error_BCHW.sum(dim=(1, 2, 3)) / (3 * count_B).clamp(min=1)).mean()
        return terms

    def _unlike_photos(
        self, outputs: Tensor, uv_BHW2: Tensor, colours_BCHW: Tensor, on_B1HW: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Distances (B,) of features and of styles, 0 where nobody is seen."""
        network = read_reid(Path(str(self.reid)), "pcb", outputs.device)
        shown = network(_middle(torch.where(on_B1HW, rendered(outputs, uv_BHW2), colours_BCHW)))
        with torch.no_grad():
            true = network(_middle(colours_BCHW))
        parts_TT = _parts(*self._atlas).to(outputs.device)
        column, row = (
            (share * _ATLAS_TEXELS).long().clamp(0, _ATLAS_TEXELS - 1)
            for share in (uv_BHW2[..., 0], 1 - uv_BHW2[..., 1])
        )
        parts_BHW = _middle(parts_TT[row, column] * on_B1HW[:, 0])
        style_B = style_distance(shown[0], true[0], parts_BHW, parts_BHW, num_parts=NUM_PARTS)
        return feature_distance(shown, true), style_B

    def _unlike_people(self, outputs: Tensor, texture_BHW3: Tensor) -> Tensor:
        """How far faces and hands are built in another way than those of the textures, which may have another size."""
        side = outputs.shape[-1]
        wanted_TT = _face_and_hands(*self._atlas, side).to(outputs.device)
        texture_BCHW = texture_BHW3.permute(0, 3, 1, 2).float() / 255
        texture_BCTT = functional.interpolate(texture_BCHW, size=(side, side), mode="bilinear")
        return 1 - structure((2 * outputs.float() - 1) * wanted_TT, (2 * texture_BCTT - 1) * wanted_TT).mean()

    def constant(self, target: Tensors, num: int) -> Tensor:
        """The mean colour of each texel of a small atlas, and of all texels where none is seen."""
        colours_BCHW, on_B1HW = _truth(target, "own")
        on_BHW, uv_BHW2 = on_B1HW[:, 0], target["own_uv"]
        colour_nC = colours_BCHW.permute(0, 2, 3, 1)[on_BHW]
        column_n, row_n = (
            (share * _CONSTANT_TEXELS).long().clamp(max=_CONSTANT_TEXELS - 1)
            for share in (uv_BHW2[..., 0][on_BHW], 1 - uv_BHW2[..., 1][on_BHW])
        )
        sum_TC = torch.zeros(_CONSTANT_TEXELS**2, 4, device=colour_nC.device)
        values_n4 = torch.cat([colour_nC, torch.ones_like(colour_nC[:, :1])], dim=1)
        sum_TC.index_add_(0, row_n * _CONSTANT_TEXELS + column_n, values_n4)
        total_4 = sum_TC.sum(dim=0)
        mean_TC = torch.where(sum_TC[:, 3:] > 0, sum_TC[:, :3] / sum_TC[:, 3:].clamp(min=1), total_4[:3] / total_4[3])
        return mean_TC.T.reshape(3, _CONSTANT_TEXELS, _CONSTANT_TEXELS).expand(num, -1, -1, -1)

    def measure(self, outputs: Tensor, target: Tensors) -> Arrays:
        """How alike the second picture is to the texture as it looks there; NaN where there is none, or nobody in it."""
        colours_BCHW, on_B1HW = _truth(target, "second")
        shown_BCHW = (rendered(outputs, target["second_uv"]) * on_B1HW).clamp(0, 1)
        true_BCHW = colours_BCHW * on_B1HW
        known_B = on_B1HW.flatten(1).any(dim=1).cpu().numpy()
        square_B = (shown_BCHW - true_BCHW).square().sum(dim=(1, 2, 3)) / (3 * on_B1HW.sum(dim=(1, 2, 3))).clamp(min=1)
        shown, true = shown_BCHW.cpu().numpy(), true_BCHW.cpu().numpy()
        alike_B = np.array([ssim(a, b) for a, b in zip(shown, true, strict=True)])
        measured = {"ssim": alike_B, "psnr": -10 * np.log10(square_B.double().cpu().numpy() + 1e-12)}
        if self.lpips:
            with torch.no_grad():
                apart = _lpips()(2 * shown_BCHW.cpu() - 1, 2 * true_BCHW.cpu() - 1)
            measured["lpips"] = apart.flatten().double().numpy()
        measured = {name: np.where(known_B, values, np.nan) for name, values in measured.items()}
        return measured | (self._measure_seen(outputs, target) if self.reid or self.reid_plain else {})

    def _measure_seen(self, outputs: Tensor, target: Tensors) -> dict[str, npt.NDArray[Any]]:
        """As Texformer scores: the texture in the very photo that was seen; NaN where nobody is."""
        colours_BCHW, on_B1HW = _truth(target, "own")
        shown_BCHW = rendered(outputs, target["own_uv"]).clamp(0, 1)
        whole_BCHW = torch.where(on_B1HW, shown_BCHW, colours_BCHW)
        grey = [
            functional.interpolate(_middle((2 * values - 1) * on_B1HW), size=PHOTO_PX, mode="area")
            for values in (shown_BCHW, colours_BCHW)
        ]
        found = {"seen_ssim": similarity(*grey)}
        with torch.no_grad():
            if self.lpips:
                found["seen_lpips"] = _lpips()(*(values.cpu() for values in grey)).flatten()
            for name, kind, path in (("seen_cossim", "pcb", self.reid), ("seen_cossim_r", "plain", self.reid_plain)):
                if path:
                    network = read_reid(Path(path), kind, outputs.device)
                    found[name] = cosine(network(_middle(whole_BCHW)), network(_middle(colours_BCHW)))
        known_B = on_B1HW.flatten(1).any(dim=1).cpu().numpy()
        return {name: np.where(known_B, values.double().cpu().numpy(), np.nan) for name, values in found.items()}

    def scores(self, measured: Arrays) -> Mapping[str, Score]:
        """Means over the pictures that have a second one.

        Raises:
            ValueError: none has.
        """
        known = np.isfinite(measured["ssim"])
        if not known.any():
            raise ValueError("no example has a second picture, so that nothing can be scored")
        means = {
            name: float(values[np.isfinite(values)].mean())
            for name, values in measured.items()
            if np.isfinite(values).any()
        }
        # Of photographs there is none of the same moment, nor does anybody know the truth.
        other = "another photo of the same person, through a fitted body's" if "seen_ssim" in means else _OTHER_RENDER
        seen = f"in {other} texture coordinates; {known.sum()} pictures"
        black = f"whole squares, black off the person, {seen}"
        scores = {
            "ssim": Score(value=means["ssim"], unit="none", better="higher", convention=f"window of 11 px, {black}"),
            "psnr": Score(value=means["psnr"], unit="dB", better="higher", convention=f"pixels of the person, {seen}"),
        }
        if "lpips" in means:
            scores["lpips"] = Score(value=means["lpips"], unit="none", better="lower", convention=f"AlexNet, {black}")
        for name, better, told in _SEEN:
            if name in means:
                count = np.isfinite(measured[name]).sum()
                convention = f"{told}, in the photo that was seen itself, as Texformer scores; {count} pictures"
                scores[name] = Score(value=means[name], unit="none", better=better, convention=convention)
        return scores

    def draw(self, image_HW3: npt.NDArray[np.uint8], outputs: Tensor, index: int) -> npt.NDArray[np.uint8]:
        """The photo, and the texture beside it."""
        height = image_HW3.shape[0]
        texture = cv2.resize(_picture(outputs[index]), (height, height), interpolation=cv2.INTER_AREA)
        return np.concatenate([image_HW3, texture.astype(np.uint8)], axis=1)

    def write(self, out: Path, cut: Cut, outputs: Tensor) -> list[Path]:  # noqa: ARG002
        """The texture as PNG."""
        done, data = cv2.imencode(".png", _picture(outputs[0])[..., ::-1])
        assert done, "a texture is encoded"
        path = out.with_name(f"{out.stem}_texture.png")
        write_bytes(path, data.tobytes())
        return [path]


def rendered(textures_BCTT: Tensor, uv_BHW2: Tensor) -> Tensor:
    """What textures look like (B, C, H, W) through maps of texture coordinates, interpolated between texels; edges go on outside."""
    grid_BHW2 = torch.stack([2 * uv_BHW2[..., 0] - 1, 1 - 2 * uv_BHW2[..., 1]], dim=-1)
    return functional.grid_sample(textures_BCTT.float(), grid_BHW2, padding_mode="border", align_corners=False)


_OTHER_RENDER = "another picture of the same moment, through its true"
_SEEN: Sequence[tuple[str, Literal["lower", "higher"], str]] = (
    ("seen_ssim", "higher", "window of 11 px in 128 x 64 px, grey off the person"),
    ("seen_lpips", "lower", "AlexNet, 128 x 64 px, grey off the person"),
    ("seen_cossim", "higher", "CosSim: cosine of PCB's features, four stages, before the photo's own background"),
    (
        "seen_cossim_r",
        "higher",
        "CosSim-R: cosine of a plain ResNet-50's features, four stages, before the photo's own background",
    ),
)


class _Colours(nn.Module):
    """Colours in [0, 1] of the texels of each patch, from its token; grey at the start, as texels that nobody sees stay what they were."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 3 * PATCH_TEXELS**2)
        nn.init.xavier_uniform_(self.linear.weight, gain=FIRST_GAIN)
        nn.init.zeros_(self.linear.bias)

    def forward(self, maps_BNE: Sequence[Tensor]) -> Tensor:
        """(B, C, T, T)."""
        return (1 + unpatchify(self.linear(maps_BNE[-1]).tanh(), PATCH_TEXELS)) / 2


def _seen(name: str, picture_HW3: npt.NDArray[np.uint8], uv_HW2: Any, cut: Cut) -> dict[str, npt.NDArray[Any]]:
    uv = map_in_image(np.ascontiguousarray(uv_HW2, dtype=np.float32), cut, outside=OFF)
    return {name: take(picture_HW3, cut), f"{name}_uv": uv}


def _truth(target: Tensors, name: str) -> tuple[Tensor, Tensor]:
    """Colours (B, C, H, W) in [0, 1], and which pixels are the person's, (B, 1, H, W)."""
    return target[name].permute(0, 3, 1, 2).float() / 255, (target[f"{name}_uv"][..., 0] >= 0)[:, None]


def _middle(maps: Tensor) -> Tensor:
    """The middle half of the columns of (..., H, W), as wide as a photo of a whole person."""
    quarter = maps.shape[-1] // 4
    return maps[..., quarter : maps.shape[-1] - quarter]


@lru_cache(maxsize=2)
def _parts(body: Path, uv: Path | None) -> Tensor:
    return torch.from_numpy(read_atlas(body, uv).parts(_ATLAS_TEXELS))


@lru_cache(maxsize=4)
def _face_and_hands(body: Path, uv: Path | None, side: int) -> Tensor:
    return torch.from_numpy(read_atlas(body, uv).face_and_hands(side)).float()


@lru_cache(maxsize=2)
def _textures(path: Path) -> list[Path]:
    found = (
        sorted(file for file in path.rglob("*") if file.suffix.lower() in _TEXTURE_SUFFIXES)
        if path.is_dir()
        else [path]
    )
    found = [file for file in found if "nongrey" in file.name] or found
    if not found or not found[0].is_file():
        hint = "give a picture of a texture, or the folder `textures` of SURREAL"
        raise TrainingError("there are no textures", where=path, hint=hint)
    return found


def _picture(texture_CTT: Tensor) -> npt.NDArray[np.uint8]:
    scaled = (texture_CTT.detach().float().clamp(0, 1) * 255).round()
    return np.ascontiguousarray(scaled.permute(1, 2, 0).to(torch.uint8).cpu().numpy())


@lru_cache(maxsize=1)
def _lpips() -> Any:
    try:
        lpips = import_module("lpips")
    except ImportError as error:
        raise TrainingError(
            "LPIPS needs the package `lpips`", where="lpips", hint="pip install lpips, or leave lpips out"
        ) from error
    return lpips.LPIPS(net="alex", verbose=False).eval()
