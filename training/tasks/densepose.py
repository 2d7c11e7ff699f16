"""Which place of the body's surface each pixel shows: parts, and u and v on each.

Shape letters: `B` examples, `P` annotated pixels of one, `Q` annotated pixels of all, `H W` image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from training.examples.base import About, Example
from training.examples.free_surface import body_file
from training.heads.dense import NUM_PARTS, DenseHead, SurfaceMaps
from training.metrics.surface import Surface, geodesic_auc, geodesic_errors_m
from training.tasks.base import Arrays, Cut, Score, Tensors, of_batch
from training.tasks.placing import map_in_image, shares_in_image
from training.tasks.surface import read_evaluation, read_template

CHANNELS = 1 + 3 * NUM_PARTS
COARSE = 15  # DensePose's 14 coarse parts and the background
UNKNOWN = 255
MOST_POINTS = 1024
_CONSTANT_CELLS = 28  # of a constant answer's maps, along a side
LIMITS_M = (0.30, 0.10)

WEIGHTS: Mapping[str, tuple[float, float, float]] = {"densepose": (0.3, 0.1, 2.0), "detectron2": (1.0, 0.01, 5.0)}
"""Of the part, of u and v, and of the coarse parts: as DensePose was published, and as detectron2 has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DensePose:
    """Dense maps of 25 parts, u and v, learned at annotated pixels.

    Convention: cross entropy is the mean over the annotated pixels of a batch, with those that are known to be background; the errors of u
    and v are summed over the pixels of an image, as in both references, and averaged over images, which those don't.

    Args:
        weights: of the terms, a name of `WEIGHTS`.
        coarse: also predict the coarse parts, as the references do: 15 maps more and a dense loss.
        evaluation: folder of DensePose's evaluation data, for its annotations; without it the free body's surface scores rendered people.
        body: file of the body that was rendered; the free one by default.
        patch_px: side of the network's patches, so that maps are as large as the image.
        features: width of the head's maps, 256 in the reference.
    """

    weights: Literal["densepose", "detectron2"] = "densepose"
    coarse: bool = False
    evaluation: str | None = None
    body: str | None = None
    patch_px: int = 16
    features: int = 256

    name: ClassVar = "densepose"
    reads: ClassVar[Literal["dense"]] = "dense"
    main: ClassVar = "auc_30cm"
    flips: ClassVar = False  # a mirrored pixel is another place of the surface, which would take a table to tell
    turns: ClassVar = True

    def __post_init__(self) -> None:
        if self.weights not in WEIGHTS:
            raise ValueError(f"weights must be {' or '.join(WEIGHTS)}, not {self.weights!r}")

    def check(self, train: Sequence[About], test: About) -> None:
        """Refuse datasets without places on a surface, and a surface that is not the datasets'.

        Raises:
            TrainingError: which dataset lacks what.
        """
        needed = {"surface", "coarse"} if self.coarse else {"surface"}
        for about in (*train, test):
            where = f"{about.name}, {about.split}"
            if missing := needed - set(about.labels):
                raise TrainingError(
                    f"examples have no labels of {' or '.join(sorted(missing))}",
                    where=where,
                    hint="use densepose_coco, or free_surface for rendered people; coarse: false needs no coarse parts",
                )
            if (self.evaluation is None) is not about.name.startswith("free"):
                hint = "give `evaluation` for DensePose's annotations, and for rendered people leave it away"
                raise TrainingError("its parts, u and v are of another surface than the scores", where=where, hint=hint)
        self._surface()

    def head(self, widths: Sequence[int], num_patches: int) -> nn.Module:  # noqa: ARG002
        """The dense prediction transformer's head."""
        channels = CHANNELS + (COARSE if self.coarse else 0)
        return DenseHead(widths, channels, patch_px=self.patch_px, features=self.features)

    def target(self, example: Example, cut: Cut, about: About) -> Arrays:  # noqa: ARG002
        """Make "place" (P, 2) as shares of the image's side, "part" (P,), "uv" (P, 2), "known" (P,), and with coarse parts "coarse" (H, W)."""
        surface_n5 = _thinned(np.asarray(example.labels["surface"], np.float64))
        place_n2 = shares_in_image(surface_n5[:, :2], cut)
        surface_n5, place_n2 = (rows[((place_n2 > 0) & (place_n2 < 1)).all(axis=1)] for rows in (surface_n5, place_n2))
        rest = MOST_POINTS - len(place_n2)
        target: dict[str, npt.NDArray[Any]] = {
            "place": np.pad(place_n2, ((0, rest), (0, 0))).astype(np.float32),
            "part": np.pad(surface_n5[:, 2], (0, rest)).astype(np.int64),
            "uv": np.pad(surface_n5[:, 3:], ((0, rest), (0, 0))).astype(np.float32),
            "known": np.arange(MOST_POINTS) < len(place_n2),
        }
        if self.coarse:
            target["coarse"] = _coarse_in_image(example, cut)
        return target

    def loss(self, outputs: Tensor, target: Tensors) -> Mapping[str, Tensor]:
        """Cross entropy of parts and smooth L1 of u and v of the true part, weighted."""
        part_weight, place_weight, coarse_weight = WEIGHTS[self.weights]
        parts_B25P, u_BPP, v_BPP = (_at(maps, target["place"]) for maps in _maps(outputs))
        part_BP, known_BP = target["part"], target["known"]
        # Every batch has all terms: without a pixel they are 0, and so are their gradients.
        each_BP = functional.cross_entropy(parts_B25P, part_BP, reduction="none") * known_BP
        terms = {"part": part_weight * each_BP.sum() / of_batch(known_BP.sum())}
        on_BP = known_BP & (part_BP > 0)
        own_B1P = (part_BP - 1).clamp(min=0)[:, None]
        for name, maps_BPP, true_BP in (("u", u_BPP, target["uv"][..., 0]), ("v", v_BPP, target["uv"][..., 1])):
            error_BP = functional.smooth_l1_loss(maps_BPP.gather(1, own_B1P)[:, 0], true_BP, reduction="none")
            terms[name] = place_weight * (error_BP * on_BP).sum() / len(outputs)
        if self.coarse:
            logits_BCHW = outputs[:, CHANNELS:].float()
            true_B1HW = functional.interpolate(target["coarse"][:, None].float(), logits_BCHW.shape[-2:])
            true_BHW = true_B1HW[:, 0].long()
            seen_BHW = true_BHW != UNKNOWN
            each_BHW = functional.cross_entropy(logits_BCHW, true_BHW * seen_BHW, reduction="none") * seen_BHW
            terms["coarse"] = coarse_weight * each_BHW.sum() / of_batch(seen_BHW.sum())
        return terms

    def constant(self, target: Tensors, num: int) -> Tensor:
        """How frequent each part is in each cell of a grid, and the part's mean u and v there."""
        known_BP, side = target["known"], _CONSTANT_CELLS
        part_n, uv_n2 = target["part"][known_BP], target["uv"][known_BP]
        x_n, y_n = (target["place"][known_BP] * side).long().clamp(0, side - 1).unbind(1)
        grids = []
        for values_n in (torch.ones_like(uv_n2[:, 0]), uv_n2[:, 0], uv_n2[:, 1]):
            sum_Q = torch.zeros((NUM_PARTS + 1) * side**2, device=values_n.device)
            grids.append(sum_Q.index_add(0, (part_n * side + y_n) * side + x_n, values_n).reshape(-1, side, side))
        count, *sums = grids
        maps = [(count + 1e-3).log(), *((total / count.clamp(min=1))[1:] for total in sums)]
        return torch.cat(maps).expand(num, -1, -1, -1)

    def measure(self, outputs: Tensor, target: Tensors) -> Arrays:
        """What is predicted at the annotated pixels: the likeliest part, and u and v of it."""
        parts_B25P, u_BPP, v_BPP = (_at(maps, target["place"]) for maps in _maps(outputs))
        part_BP = parts_B25P.argmax(dim=1)
        own_B1P = (part_BP - 1).clamp(min=0)[:, None]
        uv_BP2 = torch.stack([maps.gather(1, own_B1P)[:, 0] for maps in (u_BPP, v_BPP)], dim=-1)
        scored_BP = target["known"] & (target["part"] > 0)
        found = {
            "predicted_part": part_BP,
            "predicted_uv": uv_BP2,
            "part": target["part"],
            "uv": target["uv"],
            "scored": scored_BP,
        }
        return {name: values.cpu().numpy() for name, values in found.items()}

    def scores(self, measured: Arrays) -> Mapping[str, Score]:
        """Areas under the share of pixels within a geodesic distance, and the share of right parts."""
        scored = measured["scored"].astype(bool)
        predicted_Q, predicted_uv_Q2, part_Q, uv_Q2 = (
            measured[name][scored] for name in ("predicted_part", "predicted_uv", "part", "uv")
        )
        errors_m = geodesic_errors_m(predicted_Q, predicted_uv_Q2, part_Q, uv_Q2, surface=self._surface())
        which = "DensePose's subdivided SMPL" if self.evaluation else "the free body at rest"
        pixels = f"{len(errors_m)} annotated pixels pooled, the likeliest of 25 parts; on {which}"
        return {
            **{
                f"auc_{100 * limit:.0f}cm": Score(
                    value=geodesic_auc(errors_m, limit_m=limit),
                    unit="share",
                    better="higher",
                    convention=f"mean of 1 - geodesic / {limit:g} m, cut at 0; background counts as a miss; {pixels}",
                )
                for limit in LIMITS_M
            },
            "part": Score(
                value=float((predicted_Q == part_Q).mean()),
                unit="share",
                better="higher",
                convention=f"right parts of {pixels}",
            ),
        }

    def draw(self, image_HW3: npt.NDArray[np.uint8], outputs: Tensor, index: int) -> npt.NDArray[np.uint8]:
        """A colour for each part, brighter along u and paler along v, over the image."""
        part_HW, u_HW, v_HW = _answer(outputs[index : index + 1], image_HW3.shape[0])
        hue = (part_HW * 67 % 180).astype(np.uint8)  # neighbours in number are far apart in colour
        hsv = np.dstack([hue, 230 - 150 * v_HW, 110 + 145 * u_HW]).astype(np.uint8)
        painted = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        blend = np.rint(0.3 * image_HW3 + 0.7 * painted)
        return np.where(part_HW[..., None] > 0, blend, image_HW3).astype(np.uint8)

    def write(self, out: Path, cut: Cut, outputs: Tensor) -> list[Path]:
        """A PNG of the image as DensePose writes them: part, 255 u and 255 v as red, green and blue, black off the person."""
        part_HW, u_HW, v_HW = _answer(outputs[:1], cut.image_px)
        rgb = np.dstack([part_HW, np.rint(255 * u_HW), np.rint(255 * v_HW)]) * (part_HW[..., None] > 0)
        done, data = cv2.imencode(".png", rgb[..., ::-1].astype(np.uint8))
        assert done, "a map is encoded"
        path = out.with_name(f"{out.stem}_iuv.png")
        write_bytes(path, data.tobytes())
        return [path]

    def _surface(self) -> Surface:
        return (
            read_evaluation(Path(self.evaluation)) if self.evaluation else read_template(body_file(self.body)).surface
        )


def _maps(outputs_BCHW: Tensor) -> SurfaceMaps:
    return SurfaceMaps.split(outputs_BCHW[:, :CHANNELS].float())


def _at(maps_BCHW: Tensor, place_BP2: Tensor) -> Tensor:
    """Values (B, C, P) at places, interpolated between pixels."""
    grid_BP12 = (2 * place_BP2 - 1)[:, :, None]
    picked: Tensor = functional.grid_sample(maps_BCHW, grid_BP12, padding_mode="border", align_corners=False)
    return picked[..., 0]


def _answer(
    outputs_1CHW: Tensor, side: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Part, u and v (H, W) of one image, the maps brought to its size."""
    whole = functional.interpolate(outputs_1CHW.detach().float(), (side, side), mode="bilinear", align_corners=False)
    parts, u, v = SurfaceMaps.split(whole[:, :CHANNELS])
    part_1HW = parts.argmax(dim=1)
    own_11HW = (part_1HW - 1).clamp(min=0)[:, None]
    u_HW, v_HW = (maps.gather(1, own_11HW)[0, 0].clamp(0, 1).cpu().numpy() for maps in (u, v))
    return part_1HW[0].to(torch.uint8).cpu().numpy(), u_HW, v_HW


def _thinned(surface_n5: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """At most `MOST_POINTS`: all pixels of a person, and of the background an even choice."""
    if len(surface_n5) <= MOST_POINTS:
        return surface_n5
    on, off = (surface_n5[keep] for keep in (surface_n5[:, 2] > 0, surface_n5[:, 2] == 0))
    on = on[np.linspace(0, len(on) - 1, min(len(on), MOST_POINTS)).astype(int)]
    return np.concatenate([on, off[np.linspace(0, len(off) - 1, MOST_POINTS - len(on)).astype(int)]])


def _coarse_in_image(example: Example, cut: Cut) -> npt.NDArray[np.uint8]:
    """Coarse parts (H, W) of the image, `UNKNOWN` outside their box, and everywhere where nobody told them."""
    if "coarse" not in example.labels:
        return np.full((cut.image_px, cut.image_px), UNKNOWN, dtype=np.uint8)
    coarse_hw = example.labels["coarse"]
    left, top, right, bottom = example.labels["coarse_box_xyxy_px"]
    scale = np.array([(right - left) / coarse_hw.shape[1], (bottom - top) / coarse_hw.shape[0]])
    # A pixel of the map, whose edges are the box's, in the picture.
    picture_from_map = np.column_stack([np.diag(scale), np.array([left, top]) + scale / 2])
    image_from_map = cut.image_from_picture[:, :2] @ picture_from_map
    image_from_map[:, 2] += cut.image_from_picture[:, 2]
    inner = Cut(image_from_picture=image_from_map, turn_rad=cut.turn_rad, flipped=cut.flipped, image_px=cut.image_px)
    return map_in_image(coarse_hw, inner, outside=UNKNOWN)
