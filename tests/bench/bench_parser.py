"""Human parsers against real masks, and against their bare nets: how good the silhouettes are, and what a crop costs.

Run it with `make bench-parser`; it writes `report.json` and `overlays.png` to `out/bench-parser`, or to `$OUT`. A parser of
your own is judged beside the others: set CROSSPOSE_PARSER_CONFIG and CROSSPOSE_PARSER_CHECKPOINT.

Two truths are asked for: this person only, which is what is masked, and everybody in the crop. Where keypoints or a mask of
the person alone are missing, a backend or a truth has fewer people, so compare rows of one count only.
"""

import json
import logging
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from manifests.geometry import crop_from_frame
from pipeline.parse import build_parser
from pipeline.parsers.quality import centre_ellipse, patch_scores, pixel_iou
from pipeline.parsers.selfie import EVERYBODY_NET, ONE_NET, ONE_OUTPUTS, SIDE_PX
from pipeline.recipes import CropRecipe, ParserRecipe
from pipeline.sight import ONE_MARGIN, SURE, see
from pipeline.silhouettes import from_coco17, from_mask, gate
from pipeline.squares import carry, cut, square_of, square_within
from tests.support.real_masks import Marked, cihp_people, coco_people
from tests.support.samples import asset

logger = logging.getLogger(__name__)

OUT = Path(os.environ.get("OUT") or "out/bench-parser")
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6)
DILATIONS = (0.0, 0.03, 0.06, 0.09, 0.12)  # of a gate, in sides of the crop
CONFIG = "fast_scnn_8xb4-160k_cityscapes-512x1024"
NUM_CROPS, ROUNDS = 48, 5
Masks = dict[str, np.ndarray | None]  # by backend: (S, S) bool; None where it has nothing to go by


@pytest.fixture(scope="module")
def assets():
    asset(ONE_NET[0])
    return asset(EVERYBODY_NET[0]).parents[1]


def of_crop(person: Marked):
    """The crop that is stored of a person: pixels (S, S, 3), square, and the matrix from the photo to it."""
    recipe, (height, width) = CropRecipe(), person.image.shape[:2]
    square = square_within(person.box_xyxy_px, margin=recipe.margin, width=width, height=height)
    return cut(person.image, square, recipe.size_px), square, crop_from_frame(square.xyxy_px(), recipe.size_px)


def truth_of(mask, crop_from_photo):
    return from_mask(mask, crop_from_photo, CropRecipe().size_px)


def grown(mask, share):
    """A mask and what lies within a share of the crop's side of it."""
    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return (away <= share * len(mask)) if mask.any() else mask


def box_mask(person, crop_from_photo, size):
    corners = person.box_xyxy_px.reshape(2, 2) @ crop_from_photo[:2, :2].T + crop_from_photo[:2, 2]
    (x0, y0), (x1, y1) = np.clip((corners + 0.5).round().astype(int), 0, size)
    mask = np.zeros((size, size), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def masks_of(person: Marked, seen, rivals, parsers, threshold) -> Masks:
    """What every backend makes of one person; `seen`, `rivals`: what `see` alone made of them and of the others."""
    crop, square, crop_from_photo = of_crop(person)
    size = len(crop)
    parser = parsers["selfie"]
    (everybody,) = parser.parse([crop])
    middle = square_of(person.box_xyxy_px, margin=ONE_MARGIN)  # this net wants the person in the middle of its crop
    ((one, sure),) = parser.parse_one([cut(person.image, middle, size)])
    one = carry(one, middle, square, size)
    apart = see(parser, person.image, person.box_xyxy_px, threshold=threshold, rivals=rivals)
    found: Masks = {"ellipse": centre_ellipse(size)}
    found |= {f"everybody {t}": everybody > t for t in THRESHOLDS}
    found |= {f"one {t}": (one > t) & (sure >= SURE) for t in THRESHOLDS}
    found |= {
        "see": stored(seen, square, size, threshold),
        "see, the others known": stored(apart, square, size, threshold),
    }
    for name, other in parsers.items():
        if name != "selfie":
            found |= {f"{name} {t}": other.parse([crop])[0] > t for t in THRESHOLDS}
    kept = gate(person.keypoints_px, person.box_xyxy_px, crop_from_photo, size)
    found["crop stage"] = found["see"] & kept  # what is stored
    bases = {"everybody": everybody > threshold, "see": found["see"]}
    box = box_mask(person, crop_from_photo, size)
    own = others = None
    if person.keypoints_px is not None:
        own = from_coco17(person.keypoints_px, crop_from_photo, size)
        others = nearest_to(own, [from_coco17(points, crop_from_photo, size) for points in person.others_px])
    found["capsules"] = own
    found["see or capsules"] = None if own is None else found["see"] | own
    found["see or everybody, nearest"] = None if own is None else (found["see"] | bases["everybody"]) & others
    for base, mask in bases.items():
        found |= {f"{base} in box +{d}": mask & grown(box, d) for d in DILATIONS[:4]}
        found |= {f"{base} in capsules +{d}": None if own is None else mask & grown(own, d) for d in DILATIONS}
        found[f"{base} nearest"] = None if own is None else mask & others
        found[f"{base} nearest, in box +0.03"] = None if own is None else mask & others & grown(box, 0.03)
        found[f"{base} nearest, in capsules +0.06"] = None if own is None else mask & others & grown(own, 0.06)
    return found


def stored(seen, square, size, threshold):
    """What the crop stage keeps of whom it saw."""
    if seen is None:
        return np.zeros((size, size), bool)
    return carry(seen.person, seen.square, square, size) > threshold


def nearest_to(own, others):
    """Where a person's capsules are at least as near as anybody else's."""

    def away(mask):
        return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)

    nearest = np.ones(own.shape, bool)
    for other in others:
        if other.any() and own.any():
            nearest &= away(own) <= away(other)
    return nearest


def judged(mask, truth):
    patches = patch_scores(mask, truth)
    return {"iou": pixel_iou(mask, truth), **patches._asdict()}


def judge(people, parsers, threshold):
    """Scores by truth, person and backend; and what is needed to draw them."""
    scores, drawn = {"own": {}, "everybody": {}}, {}
    seen = [see(parsers["selfie"], p.image, p.box_xyxy_px, threshold=threshold) for p in people]
    for number, person in enumerate(people):
        crop, _, crop_from_photo = of_crop(person)
        rivals = [
            other
            for k, other in enumerate(seen)
            if k != number and other is not None and people[k].photo == person.photo
        ]
        masks = masks_of(person, seen[number], rivals, parsers, threshold)
        truths = {"own": person.own, "everybody": person.everybody}
        truths = {name: truth_of(mask, crop_from_photo) for name, mask in truths.items() if mask is not None}
        name = f"{person.data} {person.photo} {person.name}"
        drawn[name] = crop, masks, truths
        for which, truth in truths.items():
            scores[which][name] = {
                backend: judged(mask, truth)
                for backend, mask in masks.items()
                if mask is not None and (which == "own" or (" in " not in backend and "nearest" not in backend))
            }
    return scores, drawn


def tabled(scores, names):
    """Means over people, by backend: IoU also as median."""
    backends = dict.fromkeys(backend for name in names for backend in scores[name])
    table = {}
    for backend in backends:
        of_backend = [scores[name][backend] for name in names if backend in scores[name]]
        mean = {key: statistics.mean(score[key] for score in of_backend) for key in of_backend[0]}
        table[backend] = {
            "people": len(of_backend),
            "iou_median": statistics.median(s["iou"] for s in of_backend),
            **mean,
        }
    return table


def log_table(title, table):
    logger.info("%-40s people  IoU mean/median  patches: accuracy  recall  precision", title)
    for backend, row in table.items():
        logger.info(
            "  %-38s %6d  %.3f / %.3f              %.3f   %.3f      %.3f",
            backend, row["people"], row["iou"], row["iou_median"], row["accuracy"], row["recall"], row["precision"],
        )  # fmt: skip


def picture(scores, drawn, backends):
    """For each backend a row of tiles, the worst four people and the best four: silhouette red, truth green."""
    rows = []
    for backend in backends:
        order = sorted(
            (name for name in scores["own"] if backend in scores["own"][name]),
            key=lambda name: scores["own"][name][backend]["accuracy"],
        )
        tiles = [tile(name, backend, scores["own"][name][backend], drawn[name]) for name in order[:4] + order[-4:]]
        rows.append(np.hstack(tiles))
    return np.vstack(rows)


def tile(name, backend, score, shown):
    crop, masks, truths = shown
    image = np.ascontiguousarray(crop[..., ::-1])
    for mask, colour in ((truths["own"], (0, 220, 0)), (masks[backend], (0, 0, 255))):
        outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(image, outlines, -1, colour, 1, cv2.LINE_AA)
    image = cv2.copyMakeBorder(image, 34, 2, 2, 2, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    for text, y in (
        (f"{name}: {backend}", 13),
        ("IoU {iou:.2f} acc {accuracy:.3f} R {recall:.2f} P {precision:.2f}".format(**score), 28),
    ):
        cv2.putText(image, text, (4, y), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 1, cv2.LINE_AA)
    return image


def test_quality_on_real_masks(assets):
    threshold = ParserRecipe().threshold
    parsers = {"selfie": build_parser(ParserRecipe(), assets)}
    config, checkpoint = (os.environ.get(f"CROSSPOSE_PARSER_{name}") for name in ("CONFIG", "CHECKPOINT"))
    if config:
        parsers["mmseg"] = build_parser(ParserRecipe(backend="mmseg", config=config, checkpoint=checkpoint))
    people = coco_people() + cihp_people()
    scores, drawn = judge(people, parsers, threshold)
    report = {"threshold": threshold, "parsers": {name: p.name for name, p in parsers.items()}, "tables": {}}
    for which, of_people in scores.items():
        groups = {
            "all": list(of_people),
            "coco": [name for name in of_people if name.startswith("coco")],
            "coco with keypoints": [name for name in of_people if "capsules" in of_people[name]],
            "cihp": [name for name in of_people if name.startswith("cihp")],
        }
        report["tables"][which] = {group: tabled(of_people, names) for group, names in groups.items()}
        for group, table in report["tables"][which].items():
            log_table(f"truth: {which}; {group}", table)
    report["people"] = scores
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "report.json").write_text(json.dumps(report, indent=1))
    own = report["tables"]["own"]["coco with keypoints"]
    gates = [name for name in own if " in " in name or "nearest" in name]
    best = max(gates, key=lambda name: own[name]["accuracy"])
    logger.info("best gate by patch accuracy, this person only: %s", best)
    backends = [f"everybody {threshold}", "crop stage", best, *(["mmseg 0.5"] if config else [])]
    cv2.imwrite(str(OUT / "overlays.png"), picture(scores, drawn, backends))

    everybody = report["tables"]["everybody"]["all"]
    assert everybody[f"everybody {threshold}"]["accuracy"] > everybody["ellipse"]["accuracy"] + 0.1
    assert (
        own["crop stage"]["accuracy"]
        >= own["see"]["accuracy"]
        > own[f"everybody {threshold}"]["accuracy"]
        > own["ellipse"]["accuracy"] + 0.1
    )
    assert own[best]["accuracy"] >= own["see"]["accuracy"]


def timed(cases: dict[str, Callable[[], None]]):
    """CPU seconds of each case, by round; the rounds are interleaved, and the first warms up."""
    seconds = {name: [] for name in cases}
    for turn in range(ROUNDS + 1):
        for name, run in cases.items():
            began = time.process_time()
            run()
            if turn:
                seconds[name].append(time.process_time() - began)
    return seconds


def log_speed(title, cases):
    """Images a second of one core with the bare net and with the parser; returns the second over the first."""
    seconds = timed(cases)
    share = statistics.median(bare / ours for bare, ours in zip(seconds["bare"], seconds["ours"], strict=True))
    bare, ours = (NUM_CROPS / statistics.median(seconds[name]) for name in ("bare", "ours"))
    logger.info("%-28s bare net %6.1f images/s a core, parser %6.1f: %.2f of it", title, bare, ours, share)
    return share


def crops_of_people():
    crops = [of_crop(person)[0] for person in coco_people() + cihp_people()]
    return [crops[k % len(crops)] for k in range(NUM_CROPS)]


def opencv_net(path, outputs, crops, batch=16):
    """A loop over the net of a file, fed with inputs that are ready, as fast as OpenCV runs it."""
    cv2.setNumThreads(1)
    net = cv2.dnn.readNetFromTFLite(str(path), cv2.dnn.ENGINE_CLASSIC if outputs else cv2.dnn.ENGINE_AUTO)
    inputs = [
        np.ascontiguousarray(np.stack(crops[k : k + batch]).astype(np.float32).transpose(0, 3, 1, 2) / 255)
        for k in range(0, len(crops), batch)
    ]

    def run():
        for images in inputs:
            net.setInput(images)
            net.forward(outputs) if outputs else net.forward()

    return run


@pytest.mark.timeout(900)
def test_speed_of_the_embedded_nets(assets):
    crops = crops_of_people()
    assert crops[0].shape == (SIDE_PX, SIDE_PX, 3)
    parser = build_parser(ParserRecipe(), assets)
    shares = [
        log_speed(
            "everybody, OpenCV",
            {"bare": opencv_net(assets / EVERYBODY_NET[0], None, crops), "ours": lambda: parser.parse(crops)},
        ),
        log_speed(
            "one person, OpenCV",
            {"bare": opencv_net(assets / ONE_NET[0], ONE_OUTPUTS, crops), "ours": lambda: parser.parse_one(crops)},
        ),
    ]
    assert min(shares) >= 0.8


def litert_net(path, crops):
    from ai_edge_litert.interpreter import Interpreter

    net = Interpreter(model_path=str(path), num_threads=1)
    net.allocate_tensors()
    entry = net.get_input_details()[0]["index"]
    exits = [detail["index"] for detail in net.get_output_details()]
    inputs = [crop[None].astype(np.float32) / 255 for crop in crops]

    def run():
        for image in inputs:
            net.set_tensor(entry, image)
            net.invoke()
            for index in exits:
                net.get_tensor(index)

    return run


@pytest.mark.timeout(900)
def test_speed_of_the_embedded_nets_with_litert(assets):
    pytest.importorskip("ai_edge_litert")
    crops = crops_of_people()
    parser = build_parser(ParserRecipe(engine="litert"), assets)
    shares = [
        log_speed(
            "everybody, LiteRT",
            {"bare": litert_net(assets / EVERYBODY_NET[0], crops), "ours": lambda: parser.parse(crops)},
        ),
        log_speed(
            "one person, LiteRT",
            {"bare": litert_net(assets / ONE_NET[0], crops), "ours": lambda: parser.parse_one(crops)},
        ),
    ]
    assert min(shares) >= 0.7


@pytest.mark.timeout(900)
def test_speed_of_mmseg(tmp_path):
    """A net of random weights: what a crop costs does not depend on them."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("mmseg")
    from pipeline.parsers.mmseg import build_net, find_config, read_config

    path = find_config(CONFIG)
    torch.manual_seed(0)
    net = build_net(read_config(path), path).eval()
    torch.save({"state_dict": net.state_dict()}, tmp_path / "random.pth")
    parser = build_parser(
        ParserRecipe(
            backend="mmseg",
            config=CONFIG,
            checkpoint=str(tmp_path / "random.pth"),
            labels="cityscapes",
            input_px=SIDE_PX,
        )
    )
    crops = crops_of_people()
    inputs = [
        torch.from_numpy(np.stack(crops[k : k + 8])).permute(0, 3, 1, 2).float().contiguous() / 255
        for k in range(0, NUM_CROPS, 8)
    ]
    meta = [{"img_shape": (SIDE_PX, SIDE_PX), "ori_shape": (SIDE_PX, SIDE_PX), "pad_shape": (SIDE_PX, SIDE_PX)}] * 8

    @torch.inference_mode()
    def bare():
        for images in inputs:
            net.encode_decode(images, meta)

    assert log_speed("mmseg fast_scnn", {"bare": bare, "ours": lambda: parser.parse(crops)}) >= 0.8
