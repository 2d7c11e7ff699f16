"""Train a small segmentor of mmseg on rendered people: their silhouettes are exact, and cost nothing.

A few minutes on two cores make a net that knows rendered people, and no more: this shows the way from masks to a parser,
and that every step of it works. Measured with the default budget, patch accuracy of the net, of the embedded default, and of
one ellipse for all: on people never seen in training .92, .98 and .82; on crops of COCO .83, .94 and .71; of CIHP .69, .86
and .55. It takes trees and furniture for people, so it finds nobody in a picture that has not been cropped.
"""

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from manifests.errors import SourceError, StageError, TrainingError
from manifests.files import write_bytes, write_json
from manifests.seeds import rng_for
from pipeline.parse import HumanParser, build_parser
from pipeline.parsers.mmseg import build_net, read_config
from pipeline.parsers.quality import PatchScores, centre_ellipse, patch_scores, pixel_iou
from pipeline.progress import watch
from pipeline.recipes import ParserRecipe
from pipeline.render import Studio
from pipeline.squares import cut, inside, square_within
from synthetic.scene import SceneRecipe

SIDE_PX = 128  # of the net's input: patches are 16 px of 224, so 9 px here
BATCH = 16
RATE = 6e-3
WIDEST = 4.0  # side of the widest training crop over the person's
HELD_OUT = 8  # of so many people, one is kept to judge by
INSTANTS, VIEWS = 2, 2  # of each person
RENDERS = INSTANTS * VIEWS
MARGIN, CROP_PX = 1.25, 256  # of the crops that the net is judged on
SHOWN = 4  # best crops in the picture, and as many of the worst
CLASSES = ["background", "person"]

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Labelled = list[tuple[Bytes, Mask]]  # crops (S, S, 3) and whose pixels are a person (S, S)


def train_parser(
    out: Path, *, assets: Path, renders: int, steps: int, seed: int, real: Path | None = None
) -> dict[str, Any]:
    """Render people, train a net on them, and judge it.

    The same arguments give the same weights on one machine. Renders of an earlier run in `out` are used again.

    Args:
        out: folder for `renders/`, `config.py`, `parser.pth`, `report.json` and `overlays.png`.
        assets: folder of fetched files: the body and its motions.
        renders: images to render, four of each person; one person in eight is held out.
        steps: of training, each on 16 crops.
        seed: root of all randomness.
        real: folder of photos `images/NAME.jpg` with `labels/NAME.png`, in which what is not 0 is a person.

    Returns:
        what stands in `report.json`.

    Raises:
        TrainingError: there are too few renders or steps.
        SourceError: the folder of photos is not as told.
        SyntheticError: the body or the motions are missing.
    """
    people = renders // RENDERS
    if people < 2 or steps < 1:
        raise TrainingError(
            f"{renders} renders and {steps} steps are too few",
            where="train-parser",
            hint=f"at least {2 * RENDERS} renders, of two people, and one step",
        )
    photos = read_photos(real) if real is not None else None
    watch("rendering", render_people(out / "renders", assets, people=people, seed=seed))
    cutouts = [_read(path, cv2.IMREAD_UNCHANGED) for path in _paths(out / "renders", people, seed)]
    held_out = max(1, people // HELD_OUT) * RENDERS
    text = config_text()
    write_bytes(out / "config.py", text.encode())
    torch.manual_seed(seed)
    net: Any = build_net(read_config(out / "config.py"), out / "config.py")
    started = time.monotonic()
    losses: list[float] = []
    watch("training", train(net, cutouts[:-held_out], steps=steps, seed=seed, losses=losses))
    seconds = time.monotonic() - started
    data = io.BytesIO()
    torch.save({"state_dict": net.state_dict(), "meta": {"dataset_meta": {"classes": CLASSES}}}, data)
    write_bytes(out / "parser.pth", data.getvalue())
    recipe = ParserRecipe(backend="mmseg", config=str(out / "config.py"), checkpoint=str(out / "parser.pth"))
    report: dict[str, Any] = {
        "seed": seed, "renders": len(cutouts), "held_out": held_out, "steps": steps, "seconds": round(seconds, 1),
        "loss": {"first": float(np.mean(losses[:10])), "last": float(np.mean(losses[-10:]))},
        "threshold": recipe.threshold, "scores": {},
    }  # fmt: skip
    parsers = {"trained": build_parser(recipe)} | _default(assets)
    pictures = []
    for name, crops in (("renders", [_framed(image) for image in cutouts[-held_out:]]), ("real", photos or [])):
        if crops:
            report["scores"][name], picture = judge(parsers, crops, threshold=recipe.threshold)
            pictures.append(picture)
    done, picture = cv2.imencode(".png", np.vstack(pictures)[..., ::-1])
    assert done, "a picture of bytes is encoded"
    write_bytes(out / "overlays.png", picture.tobytes())
    write_json(out / "report.json", report)
    return report


def _default(assets: Path) -> dict[str, HumanParser | None]:
    """The embedded default, to compare with; without its weights, nothing."""
    try:
        return {"selfie": build_parser(ParserRecipe(), assets)}
    except StageError:
        return {}


def render_people(folder: Path, assets: Path, *, people: int, seed: int) -> Iterator[tuple[int, int]]:
    """Write people as PNGs whose alpha is the silhouette; those that are there already stay.

    Yields:
        renders done, and in all.
    """
    recipe = SceneRecipe(num_identities=people, scenes_per_identity=1, instants_per_scene=INSTANTS, num_views=VIEWS)
    studio = Studio(assets, recipe)
    paths = _paths(folder, people, seed)
    for index, path in enumerate(paths):
        if not path.exists():
            scene = studio.scene(seed, index // RENDERS)
            image = studio.renderer().render(scene, instant=index // VIEWS % INSTANTS, view=index % VIEWS)
            done, data = cv2.imencode(".png", np.dstack([image.rgb[..., ::-1], image.silhouette * np.uint8(255)]))
            assert done, "a render is encoded"
            write_bytes(path, data.tobytes())
        yield index + 1, len(paths)


def _paths(folder: Path, people: int, seed: int) -> list[Path]:
    return [folder / f"{seed}-{person:05d}-{render}.png" for person in range(people) for render in range(RENDERS)]


def _read(path: Path, how: int) -> Bytes:
    image = cv2.imread(str(path), how)
    if image is None:
        raise SourceError("the picture does not decode", where=path, hint="delete it")
    if image.ndim == 3:
        image[..., :3] = image[..., 2::-1].copy()
    return np.asarray(image, np.uint8)


def read_photos(folder: Path) -> Labelled:
    """Read photos with masks, each cut to the people in it.

    Args:
        folder: with `images/NAME.jpg` (or .png) and `labels/NAME.png`; 0 is the background.

    Raises:
        SourceError: there is none, a mask is missing, or has another size than its photo.
    """
    hint = "give a folder with images/NAME.jpg and labels/NAME.png, in which what is not 0 is a person"
    crops: Labelled = []
    for path in sorted((folder / "images").glob("*")):
        mask_path = folder / "labels" / f"{path.stem}.png"
        if not mask_path.is_file():
            raise SourceError(f"photo {path.name} has no mask", where=mask_path, hint=hint)
        image, mask = _read(path, cv2.IMREAD_COLOR), _read(mask_path, cv2.IMREAD_UNCHANGED)
        if mask.shape != image.shape[:2]:
            raise SourceError(f"the mask is {mask.shape}, its photo {image.shape}", where=mask_path, hint=hint)
        if mask.any():
            crops.append(_framed(np.dstack([image, (mask > 0) * np.uint8(255)])))
    if not crops:
        raise SourceError("there is no photo of a person", where=folder, hint=hint)
    return crops


def _framed(cutout: Bytes) -> tuple[Bytes, Mask]:
    """A cut-out (H, W, 4) as the crop stage would store it, and its true mask."""
    height, width = cutout.shape[:2]
    square = square_within(_box(cutout[..., 3]), margin=MARGIN, width=width, height=height)
    crop = cut(cutout, square, CROP_PX)
    return np.ascontiguousarray(crop[..., :3]), (crop[..., 3] > 127) & inside(
        square, CROP_PX, width=width, height=height
    )


def _box(alpha: Bytes) -> npt.NDArray[np.float64]:
    columns, rows = np.flatnonzero(alpha.any(axis=0)), np.flatnonzero(alpha.any(axis=1))
    if not len(columns):  # a render of nobody: the person left the view
        return np.array([0, 0, alpha.shape[1], alpha.shape[0]]) - 0.5
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) - 0.5


def config_text() -> str:
    """The config of the net: Fast-SCNN of mmseg for two classes, with nothing inherited."""
    from mmengine.config import Config

    # Running statistics settle within hundreds of steps, not thousands as with the momentum that mmseg gives this net.
    norm = {"type": "BN", "momentum": 0.1}
    model = {
        "type": "EncoderDecoder",
        "data_preprocessor": {
            "type": "SegDataPreProcessor",
            "mean": [123.675, 116.28, 103.53],
            "std": [58.395, 57.12, 57.375],
            "bgr_to_rgb": True,
            "size": (SIDE_PX, SIDE_PX),
        },
        "backbone": {"type": "FastSCNN", "norm_cfg": norm, "align_corners": False},
        "decode_head": {
            "type": "DepthwiseSeparableFCNHead",
            "in_channels": 128,
            "channels": 128,
            "concat_input": False,
            "num_classes": len(CLASSES),
            "norm_cfg": norm,
            "align_corners": False,
            # A fifth of the crops' pixels are a person: without weights, few steps find too little of them.
            "loss_decode": {"type": "CrossEntropyLoss", "class_weight": [1.0, 1.5]},
        },
        "test_cfg": {"mode": "whole"},
    }
    pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", "scale": (SIDE_PX, SIDE_PX), "keep_ratio": False},
        {"type": "PackSegInputs"},
    ]
    return str(Config({"default_scope": "mmseg", "model": model, "test_pipeline": pipeline}).pretty_text)


def train(
    net: nn.Module, cutouts: list[Bytes], *, steps: int, seed: int, losses: list[float]
) -> Iterator[tuple[int, int]]:
    """Train a segmentor on crops of cut-outs; the loss of each step goes to `losses`.

    Yields:
        steps done, and in all.
    """
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    segmentor: Any = net.train()
    prepare = segmentor.data_preprocessor
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=RATE, total_steps=steps + 1, pct_start=0.1)
    for step in range(steps):
        rng = rng_for(seed, "train-parser", step)
        crops, masks = zip(*(draw(cutouts, rng) for _ in range(BATCH)), strict=True)
        inputs = (torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() - prepare.mean) / prepare.std
        samples = [
            SegDataSample(gt_sem_seg=PixelData(data=torch.from_numpy(mask[None].astype(np.int64)))) for mask in masks
        ]
        loss = segmentor.loss(inputs, samples)["decode.loss_ce"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
        yield step + 1, steps


def draw(cutouts: list[Bytes], rng: np.random.Generator) -> tuple[Bytes, Mask]:
    """One training crop (SIDE_PX, SIDE_PX, 3) and its mask: a person turned, cut, lit and blurred by chance.

    Rendered rooms are few, and people fill them. So most people stand before another's room or before clouds of noise,
    where they may be as small as in a picture that nobody has cropped yet.
    """
    first, second = (cutouts[i] for i in rng.integers(len(cutouts), size=2))
    place = rng.random()
    front = _turned(first, rng, widest=WIDEST if place < 0.65 else 1.6)
    rgb: npt.NDArray[Any] = front[..., :3].astype(np.float32)
    alpha = front[..., 3:].astype(np.float32) / 255
    mask = alpha[..., 0] > 0.5
    if place < 0.25:
        back = _turned(second, rng, widest=1.6)
        rgb, mask = alpha * rgb + (1 - alpha) * back[..., :3], mask | (back[..., 3] > 127)
    elif place < 0.65:
        rgb = alpha * rgb + (1 - alpha) * _clouds(rng)
    if rng.random() < 0.15:
        rgb = np.repeat(rgb.mean(axis=2, keepdims=True), 3, axis=2)
    middle = rgb.mean(axis=(0, 1))
    rgb = (rgb - middle) * rng.uniform(0.6, 1.4) + middle * rng.uniform(0.8, 1.2, 3) + rng.uniform(-30, 30)
    if rng.random() < 0.3:
        rgb = cv2.GaussianBlur(rgb, (0, 0), rng.uniform(0.4, 1.5))
    rgb = rgb + rng.normal(0, rng.uniform(0, 12), rgb.shape)
    return np.clip(rgb, 0, 255).astype(np.uint8), np.asarray(mask)


def _clouds(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Coloured noise (SIDE_PX, SIDE_PX, 3) at all scales, from smooth to harsh: no thing, but edges and textures."""
    picture = np.full((SIDE_PX, SIDE_PX, 3), rng.uniform(40, 215, 3), np.float32)
    mix = np.eye(3) + rng.uniform(0, 3) * rng.uniform(0, 1, (1, 3))  # gray clouds, or gaudy ones
    strength, fade = rng.uniform(10, 50), rng.uniform(0.35, 0.9)
    for octave in range(1, 8):
        shape = rng.integers(2, 2**octave + 1, size=2)  # stripes, too
        noise = (rng.normal(0, strength * fade**octave, (*shape, 3)) @ mix).astype(np.float32)
        way = cv2.INTER_NEAREST if rng.random() < 0.2 else cv2.INTER_CUBIC
        picture += cv2.resize(noise, (SIDE_PX, SIDE_PX), interpolation=way)
    return np.clip(picture, 0, 255)


def _turned(cutout: Bytes, rng: np.random.Generator, *, widest: float) -> Bytes:
    """A square around the person or, in one of three, around a part; shifted, turned, perhaps mirrored.

    The square's side is up to `widest` times the person's longer side.
    """
    x0, y0, x1, y1 = _box(cutout[..., 3])
    longer = max(x1 - x0, y1 - y0)
    part = rng.random() < 1 / 3
    side = longer * (rng.uniform(0.4, 0.9) if part else rng.uniform(1.0, widest))
    reach = 0.3 * longer if part else max(0.1 * side, 0.45 * (side - longer))
    centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2]) + rng.uniform(-reach, reach, 2)
    scale, angle = SIDE_PX / side, np.deg2rad(rng.normal(0, 12))
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if rng.random() < 0.5:
        turn = turn @ np.diag([-1, 1])
    crop_from_image = np.column_stack([turn, SIDE_PX / 2 - 0.5 - turn @ centre])
    turned = cv2.warpAffine(cutout, crop_from_image, (SIDE_PX, SIDE_PX), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(turned, np.uint8)


def judge(
    parsers: dict[str, HumanParser | None], crops: Labelled, *, threshold: float
) -> tuple[dict[str, dict[str, float]], Bytes]:
    """Score parsers, and the floor of one ellipse for all, on crops with true masks.

    Returns:
        for each parser the mean pixel IoU, patch accuracy, recall and precision; and a picture with a row for each: the
        four best and the four worst crops of the first, true outlines in green, what was found in red.
    """
    ellipse = centre_ellipse(CROP_PX)
    found = {"ellipse": [ellipse] * len(crops)}
    for name, parser in parsers.items():
        assert parser is not None, "every backend but `none` has a parser"
        found[name] = [person > threshold for person in parser.parse([crop for crop, _ in crops])]
    scores: dict[str, dict[str, float]] = {}
    for name, masks in found.items():
        pairs = [(mask, truth) for mask, (_, truth) in zip(masks, crops, strict=True)]
        patches = np.mean([patch_scores(*pair) for pair in pairs], axis=0)
        scores[name] = {
            "crops": len(pairs),
            "pixel_iou": round(float(np.mean([pixel_iou(*pair) for pair in pairs])), 4),
            **{f"patch_{what}": round(float(v), 4) for what, v in zip(PatchScores._fields, patches, strict=True)},
        }
    first = next(iter(parsers))
    order = np.argsort([pixel_iou(mask, truth) for mask, (_, truth) in zip(found[first], crops, strict=True)])
    shown = order[::-1] if len(order) <= 2 * SHOWN else [*order[::-1][:SHOWN], *order[:SHOWN][::-1]]
    rows = [
        np.hstack([_overlay(crops[i][0], found[name][i], crops[i][1]) for i in shown]) for name in (*parsers, "ellipse")
    ]
    return scores, _wide(np.vstack(rows))


def _overlay(crop: Bytes, mask: Mask, truth: Mask) -> Bytes:
    picture = crop.copy()
    picture[mask] = picture[mask] // 2 + np.array([127, 0, 0], np.uint8)
    outlines, _ = cv2.findContours(truth.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(picture, outlines, -1, (0, 255, 0), 1), np.uint8)


def _wide(picture: Bytes) -> Bytes:
    """Pad to the width of all crops, so that the pictures of few and of many crops go below each other."""
    missing = 2 * SHOWN * CROP_PX - picture.shape[1]
    return np.pad(picture, ((0, 0), (0, missing), (0, 0)))
