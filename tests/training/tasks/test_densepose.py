import math

import cv2
import numpy as np
import pytest
import torch

from manifests.errors import TrainingError
from tests.training.tasks.cuts import WAYS, about_of, cut_of, example_of, image_of
from training.metrics.surface import Surface
from training.tasks import densepose as module
from training.tasks.densepose import CHANNELS, COARSE, MOST_POINTS, UNKNOWN, WEIGHTS, DensePose

FREE = about_of("surface", "coarse")
IMAGE_PX = 96


def about(name="free_body", labels=("surface", "coarse")):
    return type(FREE)(name=name, domain="body", split="test", labels=labels, protocol="whole pictures")


@pytest.fixture(autouse=True)
def toy_surface(monkeypatch):
    """Four places on each part, as far apart as they are in u and v and the part's number, in metres."""
    corners = np.array([(part, u, v) for part in range(1, 25) for u in (0.0, 1.0) for v in (0.0, 1.0)])
    apart = np.abs(corners[:, None] - corners).sum(axis=2) / 10
    surface = Surface(part_X=corners[:, 0].astype(int), uv_X2=corners[:, 1:], distance_XX_m=apart)
    monkeypatch.setattr(DensePose, "_surface", lambda _self: surface)


def some_points(num=40, off=20, seed=0, shape=(80, 100)):
    rng = np.random.default_rng(seed)
    points = np.column_stack(
        [
            rng.uniform(10, shape[1] - 10, num),
            rng.uniform(10, shape[0] - 10, num),
            rng.integers(1, 25, num),
            rng.random((num, 2)),
        ]
    )
    background = np.pad(rng.uniform(10, 70, (off, 2)), ((0, 0), (0, 3)))
    return np.concatenate([points, background]).astype(np.float32)


def target_of(task, *examples, **cut):
    each = [task.target(example, cut_of(example.rgb_HW3, image_px=IMAGE_PX, **cut), about()) for example in examples]
    return {name: torch.from_numpy(np.stack([one[name] for one in each])) for name in each[0]}


def true_maps(target, coarse=False):
    """Maps that say the truth in the pixels around each annotated place, and nothing elsewhere."""
    B, side = len(target["part"]), 4 * IMAGE_PX
    maps = torch.zeros(B, CHANNELS + (COARSE if coarse else 0), side, side)
    for b in range(B):
        for (x, y), part, (u, v), known in zip(
            *(target[name][b] for name in ("place", "part", "uv", "known")), strict=True
        ):
            if known:
                at = (slice(int(y * side) - 1, int(y * side) + 2), slice(int(x * side) - 1, int(x * side) + 2))
                maps[(b, int(part), *at)] = 60
                if part:
                    maps[(b, 24 + int(part), *at)], maps[(b, 48 + int(part), *at)] = u, v
    return maps


def spread_points(num=30):
    """Places far from each other, so that maps can say each alone."""
    points = some_points(num, 10)
    at = np.stack(np.meshgrid(np.linspace(12, 88, 8), np.linspace(12, 68, 5)), axis=-1).reshape(-1, 2)
    points[:, :2] = at
    return points


@pytest.mark.parametrize("weights", ["densepose", "detectron2"])
def test_the_terms_are_those_of_a_slow_twin(weights):
    task, rng = DensePose(weights=weights, coarse=True), np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(2, CHANNELS + COARSE, 12, 12)).astype(np.float32))
    coarse = rng.integers(0, 15, (2, 12, 12)).astype(np.uint8)
    coarse[:, :3] = UNKNOWN
    place = rng.uniform(0.05, 0.95, (2, 9, 2)).astype(np.float32)
    part, known = rng.integers(0, 25, (2, 9)), rng.random((2, 9)) < 0.7
    uv = rng.random((2, 9, 2)).astype(np.float32) * 3  # far enough off for the straight part of smooth L1
    target = {"place": place, "part": part, "uv": uv, "known": known, "coarse": coarse}
    terms = task.loss(logits, {name: torch.from_numpy(values) for name, values in target.items()})

    maps = logits.double().numpy()

    def between(b, channel, x, y):
        x, y = x * 12 - 0.5, y * 12 - 0.5
        total = 0.0
        for j in (math.floor(y), math.floor(y) + 1):
            for i in (math.floor(x), math.floor(x) + 1):
                share = (1 - abs(x - i)) * (1 - abs(y - j))
                total += share * maps[b, channel, min(max(j, 0), 11), min(max(i, 0), 11)]
        return total

    def entropy(values, label):
        return math.log(sum(math.exp(v) for v in values)) - values[label]

    def smooth(error):
        return error**2 / 2 if abs(error) < 1 else abs(error) - 0.5

    parts, u_sum, v_sum = [], 0.0, 0.0
    for b in range(2):
        for p in range(9):
            if known[b, p]:
                x, y = (float(value) for value in place[b, p])
                parts.append(entropy([between(b, c, x, y) for c in range(25)], part[b, p]))
                if part[b, p] > 0:
                    u_sum += smooth(between(b, 24 + part[b, p], x, y) - float(uv[b, p, 0]))
                    v_sum += smooth(between(b, 48 + part[b, p], x, y) - float(uv[b, p, 1]))
    dense = [
        entropy(maps[b, CHANNELS:, j, i].tolist(), coarse[b, j, i])
        for b in range(2)
        for j in range(3, 12)
        for i in range(12)
    ]
    w_part, w_place, w_coarse = {"densepose": (0.3, 0.1, 2.0), "detectron2": (1.0, 0.01, 5.0)}[weights]
    slow = {
        "part": w_part * np.mean(parts),
        "u": w_place * u_sum / 2,
        "v": w_place * v_sum / 2,
        "coarse": w_coarse * np.mean(dense),
    }
    assert {name: float(term) for name, term in terms.items()} == pytest.approx(slow, rel=1e-4)


def test_the_truth_costs_nothing_and_scores_all():
    task = DensePose()
    target = target_of(task, example_of(surface=spread_points()))
    maps = true_maps(target)
    assert sum(float(term) for term in task.loss(maps, target).values()) < 1e-6
    scores = task.scores(task.measure(maps, target))
    assert {name: score.value for name, score in scores.items()} == {"auc_30cm": 1, "auc_10cm": 1, "part": 1}
    assert "30 annotated pixels" in scores["auc_10cm"].convention


def test_background_is_learned_and_counts_as_a_miss_where_a_person_is():
    task = DensePose()
    target = target_of(task, example_of(surface=spread_points()))
    maps = true_maps(target)
    empty = maps.clone()
    empty[:, 0] = 100
    measured = task.measure(empty, target)
    scored = measured["scored"][0]
    assert scored.sum() == 30
    assert (measured["predicted_part"][0][scored] == 0).all()
    assert {score.value for score in task.scores(measured).values()} == {0}
    full = maps.clone()
    full[:, 3] = 80  # a part where there is nobody
    assert float(task.loss(full, target)["part"]) > float(task.loss(maps, target)["part"]) + 1
    assert task.scores(task.measure(true_maps(target), target))["part"].value == 1


def test_a_place_a_bit_off_scores_a_bit_less():
    task = DensePose()
    points = spread_points()
    points[:30, 3:] = 0
    target = target_of(task, example_of(surface=points))
    maps = true_maps(target)
    maps[:, 25:49] = 1  # u of 1 in place of 0: a tenth of a metre away
    scores = task.scores(task.measure(maps, target))
    assert scores["auc_30cm"].value == pytest.approx(1 - 0.1 / 0.3)
    assert scores["auc_10cm"].value == pytest.approx(0, abs=1e-9)
    assert scores["part"].value == 1


def test_only_the_true_parts_u_and_v_are_trained():
    task = DensePose()
    points = spread_points()
    points[:30, 2] = 7
    target = target_of(task, example_of(surface=points))
    logits = torch.zeros(1, CHANNELS, 96, 96, requires_grad=True)
    terms = task.loss(logits, target)
    (terms["u"] + terms["v"]).backward()
    moved = logits.grad[0].abs().sum(dim=(1, 2)).nonzero().ravel().tolist()
    assert moved == [24 + 7, 48 + 7]


@pytest.mark.parametrize(("scale", "turn_rad", "flipped", "shift_px"), WAYS[::2])
def test_places_and_coarse_parts_go_where_their_pixels_go(scale, turn_rad, flipped, shift_px):
    rng = np.random.default_rng(0)
    # A picture whose colours are smooth, so that the colour of a place tells where it was.
    picture = cv2.resize(rng.integers(0, 255, (5, 6, 3)).astype(np.uint8), (100, 80), interpolation=cv2.INTER_CUBIC)
    points = some_points()
    blocks = np.kron(rng.integers(0, 15, (8, 10)), np.ones((10, 10))).astype(np.uint8)
    example = example_of(
        picture, surface=points, coarse=blocks[::2, ::2].copy(), coarse_box_xyxy_px=np.array([-0.5, -0.5, 99.5, 79.5])
    )
    cut = cut_of(picture, image_px=IMAGE_PX, scale=scale, turn_rad=turn_rad, flipped=flipped, shift_px=shift_px)
    target = DensePose(coarse=True).target(example, cut, about())
    image = image_of(picture, cut)
    known = target["known"]
    assert known.sum() > 30
    kept = [i for i, point in enumerate(points) if _is_inside(point, cut)]
    assert len(kept) == known.sum()
    sampled = colours_at(image, target["place"][known] * IMAGE_PX - 0.5)
    of_picture = colours_at(picture, points[kept, :2])
    off_the_rim = ((target["place"][known] > 0.02) & (target["place"][known] < 0.98)).all(axis=1)
    assert np.abs(sampled - of_picture)[off_the_rim].max() < 12
    np.testing.assert_array_equal(target["part"][known], points[kept, 2])
    # The coarse map, taken whole at nearest pixels, agrees but for a rim of each block.
    whole = cv2.warpAffine(blocks, cut.image_from_picture, (96, 96), flags=cv2.INTER_NEAREST, borderValue=UNKNOWN)
    assert (target["coarse"] == whole).mean() > 0.9
    assert ((target["coarse"] == UNKNOWN) == (whole == UNKNOWN)).mean() > 0.98


def colours_at(picture_HW3, points_n2):
    x, y = points_n2.astype(np.float32).T[..., None]
    return cv2.remap(picture_HW3, x, y, cv2.INTER_LINEAR)[:, 0].astype(float)


def _is_inside(point, cut):
    place = cut.image_from_picture @ [point[0], point[1], 1]
    return bool(((place > -0.5) & (place < cut.image_px - 0.5)).all())


def test_a_map_of_a_box_lies_in_its_box():
    """Two pixels of a map, left and right half of a box: the image of 10 px a picture pixel shows where."""
    coarse = np.array([[3, 9]], np.uint8)
    example = example_of(
        np.zeros((10, 10, 3), np.uint8),
        surface=some_points(2, 0),
        coarse=coarse,
        coarse_box_xyxy_px=np.array([1.5, 3.5, 7.5, 5.5]),
    )
    found = DensePose(coarse=True).target(example, cut_of(example.rgb_HW3, image_px=100), about())["coarse"]
    expected = np.full((100, 100), UNKNOWN)
    expected[40:60, 20:50], expected[40:60, 50:80] = 3, 9
    assert (found == expected).mean() > 0.97
    inner = np.s_[42:58, 22:48], np.s_[42:58, 52:78]
    assert [set(found[part].ravel().tolist()) for part in inner] == [{3}, {9}]


def test_examples_without_coarse_parts_have_no_part_in_their_loss():
    task = DensePose(coarse=True)
    target = target_of(task, example_of(surface=spread_points()))
    assert (target["coarse"] == UNKNOWN).all()
    logits = torch.randn(1, CHANNELS + COARSE, 96, 96, requires_grad=True)
    terms = task.loss(logits, target)
    assert float(terms["coarse"].detach()) == 0
    sum(terms.values()).backward()
    assert not logits.grad[:, CHANNELS:].any()


def test_more_points_than_are_kept_lose_background_first():
    task = DensePose()
    target = task.target(example_of(surface=some_points(500, 2000)), cut_of(np.zeros((80, 100, 3))), about())
    assert target["known"].sum() == MOST_POINTS
    assert (target["part"] > 0).sum() == 500
    crowd = task.target(example_of(surface=some_points(3000, 5)), cut_of(np.zeros((80, 100, 3))), about())
    assert (crowd["part"] > 0).sum() == MOST_POINTS
    nobody = target_of(task, example_of(surface=np.zeros((0, 5), np.float32)))
    terms = task.loss(torch.randn(1, CHANNELS, 48, 48), nobody)
    assert sum(float(term) for term in terms.values()) == 0


def test_the_coarse_parts_are_more_maps():
    widths = [8] * 4
    tokens = tuple(torch.randn(1, 4, 8) for _ in range(4))
    assert [DensePose(coarse=coarse).head(widths, 4)(tokens).shape[1] for coarse in (False, True)] == [73, 88]


def test_a_surface_that_is_not_the_datasets_is_refused():
    DensePose().check([about()], about())
    DensePose(evaluation="eval").check([about("densepose_coco")], about("densepose_coco"))
    with pytest.raises(TrainingError, match="of another surface"):
        DensePose().check([about()], about("densepose_coco"))
    with pytest.raises(TrainingError, match="of another surface"):
        DensePose(evaluation="eval").check([about()], about("densepose_coco"))
    with pytest.raises(TrainingError, match="no labels of coarse"):
        DensePose(coarse=True).check([about(labels=("surface",))], about())
    with pytest.raises(TrainingError, match="no labels of surface"):
        DensePose().check([about()], about(labels=("pose",)))
    with pytest.raises(ValueError, match="densepose or detectron2"):
        DensePose(weights="mine")
    assert set(WEIGHTS) == {"densepose", "detectron2"}


def test_parts_are_painted_and_written(tmp_path):
    task, image = DensePose(), np.full((32, 32, 3), 50, np.uint8)
    maps = torch.zeros(1, CHANNELS, 32, 32)
    maps[0, 0, :, :16], maps[0, 4, :, 16:] = 9, 9
    maps[0, 24 + 4], maps[0, 48 + 4] = 0.25, 2.0  # past the end of v
    drawn = task.draw(image, maps, 0)
    assert (drawn[:, :15] == 50).all()
    assert (drawn[:, 17:] != 50).any(axis=2).all()
    (path,) = task.write(tmp_path / "person.glb", cut_of(image, image_px=32), maps)
    assert path.name == "person_iuv.png"
    written = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1]
    assert written[5, 25].tolist() == [4, 64, 255]
    assert not written[:, :15].any()


def test_the_free_body_is_the_default_surface(monkeypatch, assets):
    monkeypatch.undo()
    monkeypatch.setenv("CROSSPOSE_ASSETS", str(assets))
    DensePose().check([about()], about())
    with pytest.raises(TrainingError, match="no model"):
        DensePose(body="nowhere.npz").check([about()], about())
    assert module.body_file(None) == assets / "body.npz"
