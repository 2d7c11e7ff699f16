"""Textures as Texformer learns them: losses of a re-identification network, of structure, and its scores."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from manifests.errors import TrainingError
from synthetic.models.convert import convert_model
from tests.support import smpl_files
from tests.support.reid_weights import write_weights
from tests.support.smpl_market_fixture import body, write_smpl_market
from tests.support.smpl_textures import write_textures
from tests.training.tasks.cuts import about_of
from training.examples.smpl_market import smpl_market
from training.tasks import reid, texture
from training.tasks.atlas import PART_OF_JOINT, draw_charts, read_atlas, read_charts
from training.tasks.reid import cosine, feature_distance, read_reid, style_distance
from training.tasks.structure import similarity, structure
from training.tasks.texture import Texture, rendered
from training.views import cut_square

PX = 64
ABOUT = about_of("uv", "second_uv")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The options of a task on photographs, of files made here."""
    folder = tmp_path_factory.mktemp("files")
    market = write_smpl_market(folder / "SMPLMarket", num_train=2, num_test=1, faults=False)
    convert_model(smpl_files.write_pickle(folder / "SMPL_NEUTRAL.pkl", market.arrays), folder / "smpl.npz")
    weights = str(write_weights(folder / "reid.pth", seed=0, prefix="base.", wrapped=True))
    return {
        "body": str(folder / "smpl.npz"),
        "uv": str(market.root / "smpl_uv.obj"),
        "reid": weights,
        "reid_plain": weights,
        "textures": str(write_textures(folder / "textures")),
    }


@pytest.fixture
def small(monkeypatch):
    """Networks see pictures of a few pixels."""
    monkeypatch.setattr(reid, "SIZE_PX", {"pcb": (48, 32), "plain": (48, 16)})


@pytest.fixture(scope="module")
def photos(files):
    examples = smpl_market(Path(files["uv"]).parent, split="train")
    return [examples[index] for index in (0, 4)]


def target_of(task, examples, *, image_px=PX):
    each = [task.target(one, cut_square(one.square_xyxy_px, image_px=image_px), ABOUT) for one in examples]
    return {name: torch.from_numpy(np.stack([one[name] for one in each])) for name in each[0]}


def textures(num=2, side=32, seed=0):
    return torch.rand(num, 3, side, side, generator=torch.Generator().manual_seed(seed))


def test_the_network_is_a_resnet_50_by_a_slow_twin_in_float64(files, small):
    """Convolutions and norms from the file's own numbers, by name, without a module."""
    weights = {k: v.double() for k, v in torch.load(files["reid"], weights_only=True)["state_dict"].items()}
    weights = {name.removeprefix("base."): value for name, value in weights.items()}

    def norm(x, name):
        gain = weights[f"{name}.weight"] / (weights[f"{name}.running_var"] + 1e-5).sqrt()
        return (
            x * gain[:, None, None] + (weights[f"{name}.bias"] - weights[f"{name}.running_mean"] * gain)[:, None, None]
        )

    pictures = torch.rand(1, 3, 80, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    mean, std = (
        torch.tensor(v, dtype=torch.float64)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    for kind, size, last in (("pcb", (48, 32), 1), ("plain", (48, 16), 2)):
        x = (functional.interpolate(pictures, size=size, mode="bilinear") - mean) / std
        x = functional.relu(norm(functional.conv2d(x, weights["conv1.weight"], stride=2, padding=3), "bn1"))
        x = functional.max_pool2d(x, 3, 2, 1)
        maps = []
        for stage, (num, stride) in enumerate(((3, 1), (4, 2), (6, 2), (3, last)), start=1):
            for block in range(num):
                name, step = f"layer{stage}.{block}", stride if block == 0 else 1
                y = functional.relu(norm(functional.conv2d(x, weights[f"{name}.conv1.weight"]), f"{name}.bn1"))
                y = functional.conv2d(y, weights[f"{name}.conv2.weight"], stride=step, padding=1)
                y = norm(
                    functional.conv2d(functional.relu(norm(y, f"{name}.bn2")), weights[f"{name}.conv3.weight"]),
                    f"{name}.bn3",
                )
                if block == 0:
                    x = norm(
                        functional.conv2d(x, weights[f"{name}.downsample.0.weight"], stride=step),
                        f"{name}.downsample.1",
                    )
                x = functional.relu(x + y)
            maps.append(x)
        found = read_reid(Path(files["reid"]), kind)(pictures.float())
        assert [values.shape[1] for values in found] == [256, 512, 1024, 2048]
        for own, due in zip(found, maps, strict=True):
            assert own.shape == due.shape
            torch.testing.assert_close(own.double(), due, rtol=2e-4, atol=2e-4 * float(due.abs().max()))


def test_distances_are_those_of_slow_twins_in_float64():
    rng = np.random.default_rng(0)
    a, b = ([torch.from_numpy(rng.random((2, c, 6, 4))) for c in (3, 5)] for _ in range(2))
    a_parts, b_parts = (torch.from_numpy(rng.integers(0, 4, (2, 12, 8)).astype(np.uint8)) for _ in range(2))
    b_parts[1][b_parts[1] == 2] = 3  # no part 2 in the second picture of the second pair
    found = feature_distance(a, b), cosine(a, b), style_distance(a[0], b[0], a_parts, b_parts, num_parts=3)
    for pair in range(2):
        apart = alike = style = 0.0
        for x, y in zip(a, b, strict=True):
            x, y = x[pair].numpy().ravel(), y[pair].numpy().ravel()
            x, y = x / math.sqrt((x * x).sum()), y / math.sqrt((y * y).sum())
            apart += sum((p - q) ** 2 for p, q in zip(x, y, strict=True)) / len(x)
            alike += sum(p * q for p, q in zip(x, y, strict=True)) / 2
        for part in (1, 2, 3):
            grams = []
            for values, parts in ((a[0][pair], a_parts[pair]), (b[0][pair], b_parts[pair])):
                gram, count = np.zeros((3, 3)), 0
                for row, column in np.ndindex(6, 4):
                    if parts[2 * row, 2 * column] == part:
                        vector = values[:, row, column].numpy()
                        gram, count = gram + np.outer(vector, vector), count + 1
                grams.append(gram / count if count else None)
            if all(gram is not None for gram in grams):
                style += ((grams[0] - grams[1]) ** 2).mean()
        np.testing.assert_allclose([float(values[pair]) for values in found], [apart, alike, style], rtol=1e-9)


def test_a_part_of_few_pixels_has_no_style():
    maps = torch.rand(1, 4, 40, 40)
    parts = torch.zeros(1, 40, 40, dtype=torch.uint8)
    parts[0, 0, :6] = 1  # 6 of 1600: less than 0.4 %
    assert float(style_distance(maps, 2 * maps, parts, parts, num_parts=1)) == 0
    parts[0, 0, :7] = 1
    assert float(style_distance(maps, 2 * maps, parts, parts, num_parts=1)) > 0


def test_structure_and_similarity_are_those_of_a_slow_twin():
    rng = np.random.default_rng(1)
    a, b = (rng.uniform(-1, 1, (1, 1, 14, 13)) for _ in range(2))
    a[..., :4] = b[..., :4] = 0.0
    weight = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    weight = np.outer(weight, weight) / weight.sum() ** 2
    shares, whole = [], []
    for row, column in np.ndindex(14, 13):
        seen = [np.pad(x[0, 0], 5)[row : row + 11, column : column + 11] for x in (a, b)]
        m, n = ((weight * x).sum() for x in seen)
        v, w = ((weight * x * x).sum() - (weight * x).sum() ** 2 for x in seen)
        both = (weight * seen[0] * seen[1]).sum() - m * n
        shares.append((2 * both + 9e-4) / (2 * math.sqrt(max(v, 1e-5) * max(w, 1e-5)) + 9e-4))
        whole.append((2 * m * n + 1e-4) * (2 * both + 9e-4) / ((m * m + n * n + 1e-4) * (v + w + 9e-4)))
    a, b = torch.from_numpy(a), torch.from_numpy(b)
    assert float(structure(a, b)) == pytest.approx(np.mean(shares), rel=1e-9)
    assert float(similarity(a, b)) == pytest.approx(np.mean(whole), rel=1e-9)
    assert float(similarity(a, a)) == pytest.approx(1)


def test_parts_of_the_atlas_are_those_of_the_vertices(files):
    """At the middle of a face whose corners one part moves, the table tells that part; where two faces lie one upon the other, either's."""
    charts, joints = read_charts(Path(files["uv"])), body()["weights"].argmax(axis=1)
    atlas = read_atlas(Path(files["body"]), Path(files["uv"]))
    side = 512
    parts, wanted = atlas.parts(side), atlas.face_and_hands(side)
    assert set(np.unique(parts)) <= set(range(1, 8))
    face, _ = draw_charts(charts, side)
    middles = charts.uvs[charts.face_uvs].mean(axis=1)
    row, column = ((1 - middles[:, 1]) * side).astype(int), (middles[:, 0] * side).astype(int)
    pure = np.flatnonzero(
        (face[row, column] == np.arange(len(face_count := charts.faces))) & (np.ptp(joints[face_count], axis=1) == 0)
    )
    assert len(pure) > 3000
    joint = joints[charts.faces[pure, 0]]
    np.testing.assert_array_equal(parts[row[pure], column[pure]], PART_OF_JOINT[joint])
    assert not wanted[row[pure], column[pure]][~np.isin(joint, (15, 20, 21, 22, 23))].any()
    assert wanted[row[pure], column[pure]][np.isin(joint, (20, 21, 22, 23))].all()
    places = Texture(body=files["body"], uv=files["uv"]).query(224)
    assert places.shape == (224, 224, 3)
    assert ((places > 0).all(axis=2) == (draw_charts(charts, 224)[0] >= 0)).all()


def test_the_loss_is_texformers_with_its_weights(files, photos, small):
    """Each term once more, from its parts."""
    task = Texture(**files)
    outputs, target = textures(), target_of(task, photos)
    terms = task.loss(outputs, target)
    assert list(terms) == ["structure", "own_features", "own_style", "second_features", "second_style"]
    network = read_reid(Path(files["reid"]), "pcb")
    table = torch.from_numpy(read_atlas(Path(files["body"]), Path(files["uv"])).parts(512))
    for name in ("own", "second"):
        true = target[name].permute(0, 3, 1, 2) / 255
        uv = target[f"{name}_uv"]
        on = uv[..., 0] >= 0
        shown = torch.where(on[:, None], rendered(outputs, uv), true)
        a, b = network(shown[..., 16:48]), network(true[..., 16:48])
        parts = torch.zeros(on.shape, dtype=torch.uint8)
        for at in on.nonzero().tolist():
            u, v = uv[tuple(at)].tolist()
            parts[tuple(at)] = table[min(int((1 - v) * 512), 511), min(int(u * 512), 511)]
        style = style_distance(a[0], b[0], parts[..., 16:48], parts[..., 16:48], num_parts=7)
        assert float(terms[f"{name}_features"]) == pytest.approx(5000 * float(feature_distance(a, b).mean()), rel=1e-4)
        assert float(terms[f"{name}_style"]) == pytest.approx(0.4 * float(style.mean()), rel=1e-3)
        assert float(terms[f"{name}_style"]) > 0


def test_faces_and_hands_are_compared_with_scans_and_nothing_else_is(files, photos):
    task = Texture(**(files | {"reid": None, "reid_plain": None}))
    target = target_of(task, photos)
    assert (target["texture"][:, -1, 0, 2] == 60).all()  # not a scan in grey
    wanted = torch.from_numpy(read_atlas(Path(files["body"]), Path(files["uv"])).face_and_hands(PX))
    truth = target["texture"].permute(0, 3, 1, 2) / 255
    least = float(task.loss(truth, target)["structure"])
    masked = (2 * truth - 1) * wanted
    assert least == pytest.approx(0.01 * (1 - float(structure(masked, masked).mean())), rel=1e-4)
    elsewhere = torch.where(wanted, truth, textures(side=PX))
    assert float(task.loss(elsewhere, target)["structure"]) == pytest.approx(least, rel=1e-4)
    there = torch.where(wanted, textures(side=PX), truth)
    assert float(task.loss(there, target)["structure"]) > 2 * least
    assert "own" in task.loss(truth, target)  # without a network, colours are learned


def test_the_gradient_reaches_what_is_seen_and_nothing_is_learned_of_a_photo_that_is_not_there(files, photos, small):
    task = Texture(**(files | {"textures": None}))
    target = target_of(task, photos)
    target["second_uv"][1] = -1
    outputs = textures().requires_grad_()
    terms = task.loss(outputs, target)
    (terms["second_features"] + terms["second_style"]).backward(retain_graph=True)
    assert outputs.grad[0].abs().sum() > 0
    assert not outputs.grad[1].any()
    outputs.grad = None
    (terms["own_features"] + terms["own_style"]).backward()
    assert (outputs.grad.flatten(1).abs().sum(dim=1) > 0).all()
    uv = target["own_uv"][0]
    seen = torch.zeros(1, 1, 32, 32).requires_grad_()
    rendered(seen, uv[None])[..., uv[..., 0] >= 0].sum().backward()
    assert not outputs.grad[0].abs().sum(dim=0)[seen.grad[0, 0] == 0].any()
    network = read_reid(Path(files["reid"]), "pcb")
    assert not network.training
    assert all(weight.grad is None for weight in network.parameters())


def test_the_loss_falls_and_the_scores_rise_when_a_texture_is_learned(files, photos, small):
    task = Texture(**(files | {"textures": None}))
    target = target_of(task, photos[:1])
    logits = torch.zeros(1, 3, 32, 32, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    losses = []
    before = task.scores(task.measure(logits.sigmoid().detach(), target))
    for _ in range(5):
        loss = sum(task.loss(logits.sigmoid(), target).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    after = task.scores(task.measure(logits.sigmoid().detach(), target))
    assert list(after) == ["ssim", "psnr", "seen_ssim", "seen_cossim", "seen_cossim_r"]
    for name in ("seen_cossim", "seen_cossim_r"):
        assert before[name].value < after[name].value <= 1
        assert after[name].better == "higher"


def test_scores_of_the_photo_that_was_seen_are_texformers(files, photos, small, monkeypatch):
    task = Texture(**(files | {"lpips": True}))
    monkeypatch.setattr(texture, "_lpips", lambda: lambda a, b: (a - b).abs().mean(dim=(1, 2, 3), keepdim=True))
    outputs, target = textures(), target_of(task, photos, image_px=128)
    target["own_uv"][1] = -1
    measured = task.measure(outputs, target)
    assert {name for name in measured if name.startswith("seen")} == {
        "seen_ssim", "seen_lpips", "seen_cossim", "seen_cossim_r",
    }  # fmt: skip
    assert np.isnan([values[1] for name, values in measured.items() if name.startswith("seen")]).all()
    # At 128 px the middle half is the photo itself: by hand, from the example.
    uv = torch.from_numpy(photos[0].labels["uv"])
    on = uv[..., 0] >= 0
    shown = 2 * rendered(outputs[:1], uv[None])[0] - 1
    photo = 2 * torch.from_numpy(photos[0].rgb_HW3 / np.float32(255)).permute(2, 0, 1) - 1
    expected = similarity((shown * on)[None], (photo * on)[None])
    assert measured["seen_ssim"][0] == pytest.approx(float(expected), abs=1e-5)
    assert measured["seen_lpips"][0] == pytest.approx(float(((shown - photo) * on).abs().mean()), abs=1e-5)
    for name, kind, file in (("seen_cossim", "pcb", files["reid"]), ("seen_cossim_r", "plain", files["reid_plain"])):
        network = read_reid(Path(file), kind)
        alike = cosine(network((torch.where(on, shown, photo)[None] + 1) / 2), network((photo[None] + 1) / 2))
        assert measured[name][0] == pytest.approx(float(alike), abs=1e-4)
    scores = task.scores(measured)
    assert "another photo of the same person, through a fitted body's texture" in scores["ssim"].convention
    assert scores["seen_ssim"].value == measured["seen_ssim"][0]
    assert scores["seen_cossim"].convention.endswith("as Texformer scores; 1 pictures")


def test_colours_are_learned_and_scored_as_before_where_no_network_is_given(photos):
    task = Texture()
    target = target_of(task, photos)
    assert set(target) == {"own", "own_uv", "second", "second_uv"}
    assert set(task.loss(textures(), target)) == {"own", "second"}
    assert set(task.measure(textures(), target)) == {"ssim", "psnr"}


@pytest.mark.parametrize(
    ("option", "write", "message"),
    [
        ("reid", None, "no weights of a re-identification network"),
        ("reid", lambda path: path.write_bytes(b"<html>not found</html>"), "none of weights, damaged"),
        ("reid", lambda path: torch.save({"state_dict": {"conv1.weight": torch.zeros(64, 3, 7, 7)}}, path), "264 of 318|missing, bn1"),
        ("reid_plain", lambda path: torch.save([1, 2], path), "no weights by name"),
        ("reid_plain", lambda path: torch.save(torch.nn.Linear(2, 2), path), "holds more than tensors"),
        ("reid", lambda path: write_weights(path, seed=0, changes={"conv1.weight": torch.zeros(64, 4, 7, 7)}), "of another network"),
        ("reid", lambda path: write_weights(path, seed=0, changes={"bn1.bias": torch.full((64,), math.nan)}), "not a finite"),
        ("textures", None, "there are no textures"),
        ("textures", lambda path: path.mkdir(), "there are no textures"),
        ("uv", None, "cannot be read"),
        ("uv", lambda path: path.write_text("v 0 0 0\nvt 0 0\nf 1/1 1/1 1/1\n"), "1 vertices have texture coordinates, the body has 6890"),
        ("uv", lambda path: path.write_text("v 0 0 0\nf 1 1 1\n"), "does not read|no faces with texture"),
        ("uv", lambda path: path.write_text("v 0 0 0\nvt 0 0\nf 1/1 1/1 1/2\n"), "is not there"),
        ("uv", lambda path: path.write_text("v 0 0 0\nvt 0 7\nf 1/1 1/1 1/1\n"), "outside"),
        ("body", None, "no model of a body"),
    ],
)  # fmt: skip
def test_what_is_missing_or_damaged_is_told_before_anything_is_trained(files, tmp_path, option, write, message):
    path = tmp_path / "given"
    if write:
        write(path)
    with pytest.raises(TrainingError, match=message) as told:
        Texture(**(files | {option: str(path)})).check([ABOUT], ABOUT)
    assert str(path) in str(told.value)


def test_what_is_given_is_read_and_a_body_without_texture_coordinates_is_refused(files):
    Texture(**files).check([ABOUT], ABOUT)
    with pytest.raises(TrainingError, match="the body has no texture coordinates"):
        Texture(body=files["body"]).check([ABOUT], ABOUT)
