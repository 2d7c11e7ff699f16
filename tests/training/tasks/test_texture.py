import math
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from manifests.errors import TrainingError
from tests.training.tasks.cuts import about_of, cut_of, example_of
from training.tasks import texture as module
from training.tasks.texture import Texture, rendered

TASK = Texture()
ABOUT = about_of("uv", "second_uv")


def smooth_texture(side=64, seed=0):
    """Colours (H, W, 3) uint8 that change slowly, the first row at v = 1."""
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(30, 220, (4, 4, 3)).astype(np.uint8), (side, side), interpolation=cv2.INTER_CUBIC)


def as_output(texture_HW3):
    return torch.from_numpy(texture_HW3.astype(np.float32) / 255).permute(2, 0, 1)[None]


def person(texture_HW3, *, seed=0, shape=(80, 100)):
    """A picture of a disk that wears the texture, and its texture coordinates."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    corner, step = rng.uniform(0.1, 0.3, 2), rng.uniform(0.005, 0.008, 2)
    uv = np.stack([corner[0] + step[0] * x, corner[1] + step[1] * y], axis=-1).astype(np.float32)
    off = (x - 50) ** 2 + (y - 40) ** 2 > 25**2
    uv[off] = -1
    shown = rendered(as_output(texture_HW3), torch.from_numpy(uv)[None])[0].permute(1, 2, 0).numpy()
    picture = np.rint(shown * 255).clip(0, 255).astype(np.uint8)
    picture[off] = rng.integers(0, 255, 3)
    return picture, uv


def example(texture_HW3=None):
    texture_HW3 = smooth_texture() if texture_HW3 is None else texture_HW3
    (first, first_uv), (second, second_uv) = person(texture_HW3), person(texture_HW3, seed=1)
    return example_of(first, second_HW3=second, uv=first_uv, second_uv=second_uv)


def target_of(*examples, image_px=80, **cut):
    each = [TASK.target(one, cut_of(one.rgb_HW3, image_px=image_px, **cut), ABOUT) for one in examples]
    return {name: torch.from_numpy(np.stack([one[name] for one in each])) for name in each[0]}


def test_textures_are_sampled_as_by_a_slow_twin():
    rng = np.random.default_rng(0)
    texture, uv = rng.random((2, 3, 6, 6)).astype(np.float32), rng.random((2, 4, 5, 2)).astype(np.float32)
    found = rendered(torch.from_numpy(texture), torch.from_numpy(uv)).numpy()
    for b, i, j in np.ndindex(2, 4, 5):
        # Texel (0, 0) is at the upper left, v counts upwards, and half a texel of rim goes on outside.
        x, y = float(uv[b, i, j, 0]) * 6 - 0.5, (1 - float(uv[b, i, j, 1])) * 6 - 0.5
        total = np.zeros(3)
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                share = (1 - abs(x - column)) * (1 - abs(y - row))
                total += share * texture[b, :, min(max(row, 0), 5), min(max(column, 0), 5)].astype(np.float64)
        np.testing.assert_allclose(found[b, :, i, j], total, atol=1e-5)


def test_the_loss_is_that_of_a_slow_twin():
    rng = np.random.default_rng(1)
    outputs = torch.from_numpy(rng.random((2, 3, 8, 8)).astype(np.float32))
    target = {}
    for name in ("own", "second"):
        uv = rng.random((2, 5, 6, 2)).astype(np.float32)
        uv[rng.random((2, 5, 6)) < 0.4] = -1
        target |= {name: rng.integers(0, 256, (2, 5, 6, 3)).astype(np.uint8), f"{name}_uv": uv}
    target["second_uv"][1] = -1
    terms = TASK.loss(outputs, {name: torch.from_numpy(values) for name, values in target.items()})
    for name in ("own", "second"):
        shown = rendered(outputs, torch.from_numpy(target[f"{name}_uv"])).double().numpy()
        means = []
        for b in range(2):
            errors = [
                abs(shown[b, c, i, j] - target[name][b, i, j, c] / 255)
                for i, j, c in np.ndindex(5, 6, 3)
                if target[f"{name}_uv"][b, i, j, 0] >= 0
            ]
            means.append(sum(errors) / len(errors) if errors else 0.0)
        assert float(terms[name]) == pytest.approx(sum(means) / 2, rel=1e-5)


@pytest.mark.parametrize("turn_rad", [0.0, 0.7])
def test_the_true_texture_costs_nothing_and_scores_all(turn_rad):
    target, truth = target_of(example(), image_px=100, turn_rad=turn_rad), as_output(smooth_texture())
    terms = TASK.loss(truth, target)
    assert float(terms["second"]) < 0.002  # half a step of a byte
    assert float(terms["own"]) < (0.02 if turn_rad else 0.002)  # turned, the rim mixes with the background
    scores = TASK.scores(TASK.measure(truth, target))
    assert scores["ssim"].value > 0.99
    assert scores["psnr"].value > 40
    worse = TASK.scores(TASK.measure(truth.flip(2), target))
    assert worse["ssim"].value < scores["ssim"].value - 0.05
    assert worse["psnr"].value < 25


def test_texture_coordinates_go_where_their_pixels_go():
    """Of a turned and moved picture whose colours are its texture's, each pixel inside still has its coordinate's colour."""
    texture = smooth_texture()
    picture, uv = person(texture)
    one = example_of(picture, second_HW3=picture, uv=uv, second_uv=uv)
    target = target_of(one, image_px=120, scale=1.2, turn_rad=-0.9, shift_px=(4.0, -3.0))
    shown = rendered(as_output(texture), target["own_uv"])[0].permute(1, 2, 0).numpy() * 255
    on = target["own_uv"][0, ..., 0].numpy() >= 0
    inner = cv2.erode(on.astype(np.uint8), np.ones((7, 7))) > 0
    assert inner.sum() > 1500
    assert np.abs(shown - target["own"][0].numpy())[inner].max() < 12


def test_only_the_persons_pixels_and_seen_texels_count():
    target = target_of(example())
    changed = dict(target)
    for name in ("own", "second"):
        changed[name] = torch.where(target[f"{name}_uv"][..., :1] >= 0, target[name], 255 - target[name])
    outputs = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    terms = TASK.loss(outputs, target)
    assert {n: float(t.detach()) for n, t in terms.items()} == {
        n: float(t.detach()) for n, t in TASK.loss(outputs, changed).items()
    }
    sum(terms.values()).backward()
    seen = outputs.grad[0].abs().sum(dim=0) > 0
    assert not seen[:2].any()  # v close to 1 is nowhere in the pictures
    assert seen.float().mean() > 0.1
    scores, again = (TASK.measure(outputs.detach(), one) for one in (target, changed))
    assert scores == again


def test_examples_without_a_second_picture_learn_from_their_own_and_are_not_scored():
    picture, uv = person(smooth_texture())
    target = target_of(example(), example_of(picture, uv=uv))
    outputs = torch.rand(2, 3, 32, 32, requires_grad=True)
    terms = TASK.loss(outputs, target)
    terms["second"].backward(retain_graph=True)
    assert not outputs.grad[1].any()
    assert outputs.grad[0].any()
    outputs.grad = None
    terms["own"].backward()
    assert outputs.grad[1].any()
    measured = TASK.measure(outputs.detach(), target)
    assert np.isfinite(measured["ssim"]).tolist() == [True, False]
    scores = TASK.scores(measured)
    assert scores["ssim"].value == measured["ssim"][0]
    assert "; 1 pictures" in scores["ssim"].convention
    with pytest.raises(ValueError, match="no example has a second picture"):
        TASK.scores({name: values[1:] for name, values in measured.items()})


def test_the_head_gives_sixteen_texels_a_patch_in_their_places():
    head = TASK.head([8], 4)
    tokens = torch.randn(2, 4, 8)
    assert (head((tokens,)).detach() - 0.5).abs().max() < 0.05  # grey at the start
    torch.nn.init.normal_(head.linear.weight)
    colours = head((tokens,)).detach()
    assert colours.shape == (2, 3, 32, 32)
    assert 0 <= float(colours.min()) < float(colours.max()) <= 1
    other = tokens.clone()
    other[0, 1] += 1  # the upper right patch
    changed = (head((other,)) != colours).any(dim=1)[0]
    assert changed[:16, 16:].all()
    assert changed.sum() == 256


def test_people_without_texture_coordinates_are_refused(monkeypatch):
    TASK.check([ABOUT], ABOUT)
    with pytest.raises(TrainingError, match="no labels of second_uv"):
        TASK.check([ABOUT], about_of("uv"))
    monkeypatch.setitem(sys.modules, "lpips", None)
    module._lpips.cache_clear()
    with pytest.raises(TrainingError, match="needs the package"):
        Texture(lpips=True).check([ABOUT], ABOUT)


def test_lpips_is_scored_by_its_package_in_its_own_scale(monkeypatch):
    class Net:
        def __init__(self, net, *, verbose):
            assert net == "alex"

        def eval(self):
            return self

        def __call__(self, a, b):
            assert a.shape == b.shape == (1, 3, 80, 80)
            assert float(a.min()) == float(b.min()) == -1  # black
            assert float(a.max()) <= 1
            return (a - b).abs().mean(dim=(1, 2, 3), keepdim=True)

    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=Net))
    module._lpips.cache_clear()
    task, target, truth = Texture(lpips=True), target_of(example()), as_output(smooth_texture())
    task.check([ABOUT], ABOUT)
    near, far = (task.scores(task.measure(outputs, target))["lpips"] for outputs in (truth, truth.flip(2)))
    module._lpips.cache_clear()
    assert near.better == "lower"
    assert near.value < 0.01 < far.value


def test_the_texture_is_drawn_beside_the_photo_and_written(tmp_path):
    image, texture = np.full((48, 48, 3), 9, np.uint8), smooth_texture(48)
    drawn = TASK.draw(image, as_output(texture), 0)
    assert drawn.dtype == np.uint8
    np.testing.assert_array_equal(drawn, np.concatenate([image, texture], axis=1))
    (path,) = TASK.write(tmp_path / "person.jpg", cut_of(image), as_output(texture))
    assert path.name == "person_texture.png"
    np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], texture)


def test_the_query_shows_where_texels_are_on_the_body(assets):
    query = Texture(body=str(assets / "body.npz")).query(224)
    assert query.shape == (224, 224, 3)
    with np.load(assets / "body.npz") as arrays:
        faces = np.flatnonzero(arrays["face_group"] == 0)[::40]
        rest = arrays["v_template"][arrays["f"][faces]].mean(axis=1)
        u, v = arrays["uvs"][arrays["face_uvs"][faces]].mean(axis=1).T
        low, high = arrays["v_template"].min(axis=0), arrays["v_template"].max(axis=0)
    seen = query[((1 - v) * 224).astype(int), (u * 224).astype(int)].astype(float)
    expected = 1 + 254 * (rest - low) / (high - low)
    assert np.median(np.abs(seen - expected)) < 2
    assert np.quantile(np.abs(seen - expected), 0.97) < 12
    assert (query == 0).all(axis=2).mean() > 0.3
