import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.metrics import plain
from training.metrics.points import (
    align_similarity,
    f_score,
    mpjpe_mm,
    mpvpe_mm,
    pa_mpjpe_mm,
    pck,
    pck_auc,
    point_errors_mm,
)

SEEDS = st.integers(0, 2**32 - 1)
MIRROR = np.array([-1.0, 1.0, 1.0])


def points(seed, images=3, joints=14, size_m=0.5):
    return np.random.default_rng(seed).normal(scale=size_m, size=(images, joints, 3))


def turns(seed, images=3):
    """Proper rotations, one an image."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(images, 3, 3)))
    q *= np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None]
    q[:, :, 0] *= np.linalg.det(q)[:, None]
    return q


def near(true, seed, noise_m=0.03):
    return true + np.random.default_rng(seed).normal(scale=noise_m, size=true.shape)


@given(SEEDS, st.sampled_from([(), (0,), (2, 3)]))
def test_mpjpe_is_its_slow_twin(seed, root):
    true = points(seed)
    predicted = near(true, seed + 1)
    twin = [plain.mpjpe_mm(p, t, root) for p, t in zip(predicted, true, strict=True)]
    np.testing.assert_allclose(mpjpe_mm(predicted, true, root=root), twin, rtol=1e-12)
    roots = None if not root else (predicted[:, root].mean(1), true[:, root].mean(1))
    np.testing.assert_allclose(mpvpe_mm(predicted, true, roots_m=roots), twin, rtol=1e-12)


@given(SEEDS, st.booleans(), st.sampled_from([3, 4, 14]))
def test_pa_mpjpe_is_its_slow_twin(seed, mirror, joints):
    true, predicted = points(seed, joints=joints), points(seed + 1, joints=joints)
    twin = [plain.pa_mpjpe_mm(p, t, mirror=mirror) for p, t in zip(predicted, true, strict=True)]
    np.testing.assert_allclose(pa_mpjpe_mm(predicted, true, mirror=mirror), twin, rtol=1e-7)


def test_closed_forms():
    true = points(0)
    moved = true + np.array([0.03, 0.0, 0.04])
    np.testing.assert_allclose(mpjpe_mm(moved, true, root=()), 50)
    np.testing.assert_allclose(mpjpe_mm(moved, true, root=(0,)), 0, atol=1e-9)
    np.testing.assert_allclose(point_errors_mm(moved, true), 50)
    one = true.copy()
    one[:, 5] += [0.0, 0.14, 0.0]
    np.testing.assert_allclose(mpjpe_mm(one, true, root=(0,)), 140 / 14)


def test_the_pelvis_may_be_the_middle_of_the_hips():
    true = points(0, joints=4)
    predicted = true.copy()
    predicted[:, 2] += [0.02, 0, 0]  # one hip moves 20 mm, the middle 10
    np.testing.assert_allclose(mpjpe_mm(predicted, true, root=(2, 3)), (10 + 10 + 10 + 10) / 4)
    np.testing.assert_allclose(mpjpe_mm(predicted, true, root=(3,)), 20 / 4)


@given(SEEDS, st.floats(0.1, 10))
def test_invariances(seed, scale):
    """Root alignment forgets the place, similarity alignment also the turn and the size; turning both changes nothing."""
    true = points(seed)
    predicted, turn, place = near(true, seed + 1), turns(seed), points(seed + 2, joints=1)
    placed = mpjpe_mm(predicted + place, true, root=(0,))
    np.testing.assert_allclose(placed, mpjpe_mm(predicted, true, root=(0,)))
    both = mpjpe_mm(predicted @ turn + place, true @ turn + place, root=())
    np.testing.assert_allclose(both, mpjpe_mm(predicted, true, root=()))
    np.testing.assert_allclose(
        mpjpe_mm(scale * predicted, scale * true, root=()), scale * mpjpe_mm(predicted, true, root=())
    )
    similar = pa_mpjpe_mm(scale * predicted @ turn + place, true)
    np.testing.assert_allclose(similar, pa_mpjpe_mm(predicted, true), rtol=1e-8)
    np.testing.assert_allclose(pa_mpjpe_mm(scale * true @ turn + place, true), 0, atol=1e-8)


@given(SEEDS)
def test_no_other_similarity_comes_nearer(seed):
    true, predicted = points(seed), points(seed + 1)

    def squares(aligned):
        return ((aligned - true) ** 2).sum(axis=(1, 2))

    best = squares(align_similarity(predicted, true))
    aligned, middle = align_similarity(predicted, true), true.mean(1, keepdims=True)
    rng = np.random.default_rng(seed)
    for size in (1.0, 0.1, 0.001):
        other = np.eye(3) + size * rng.normal(size=(3, 3, 3))
        turn = np.linalg.svd(other)
        turn = turn[0] @ turn[2]
        turn *= np.linalg.det(turn)[:, None, None]
        tried = (1 + size * rng.normal()) * (aligned - middle) @ turn + middle + size * rng.normal(size=3)
        assert (squares(tried) >= best - 1e-12).all()
    assert (squares(align_similarity(predicted, true, mirror=True)) <= best + 1e-12).all()


@given(SEEDS)
def test_a_batch_is_its_images(seed):
    true, predicted = points(seed), points(seed + 1)
    for score in (
        lambda p, t: mpjpe_mm(p, t, root=(0,)),
        lambda p, t: pa_mpjpe_mm(p, t),
        lambda p, t: f_score(p, t, threshold_mm=300),
    ):
        alone = [score(p[None], t[None])[0] for p, t in zip(predicted, true, strict=True)]
        np.testing.assert_allclose(score(predicted, true), alone, rtol=1e-12)


def test_a_mirrored_hand_scores_nothing_only_where_mirrors_are_allowed():
    true = points(3, joints=21)
    assert (pa_mpjpe_mm(true * MIRROR, true) > 50).all()
    np.testing.assert_allclose(pa_mpjpe_mm(true * MIRROR, true, mirror=True), 0, atol=1e-9)


@pytest.mark.parametrize("mirror", [False, True])
def test_points_on_a_line_or_in_a_plane(mirror):
    line = np.linspace(0, 1, 5)[None, :, None] * np.array([0.3, -0.2, 0.5])
    turned = 2 * line @ turns(1, images=1) + 1.0
    np.testing.assert_allclose(pa_mpjpe_mm(turned, line, mirror=mirror), 0, atol=1e-9)
    flat = points(4, images=1) * [1, 1, 0]
    np.testing.assert_allclose(
        pa_mpjpe_mm(flat * MIRROR, flat, mirror=mirror), 0, atol=1e-9
    )  # a plane is its own mirror


def test_a_collapsed_prediction_lands_on_the_centroid():
    true = points(5)
    expected = mpjpe_mm(true.mean(1, keepdims=True).repeat(14, 1), true, root=())
    for place in (0.0, 7.0):
        np.testing.assert_allclose(pa_mpjpe_mm(np.full(true.shape, place), true), expected, rtol=1e-9)


def test_bad_points_are_told():
    good, bad = points(0), points(0)
    bad[1, 2, 0] = np.nan
    with pytest.raises(ValueError, match=r"predicted points of image 1 are not finite \(1 of 3"):
        mpjpe_mm(bad, good, root=())
    with pytest.raises(ValueError, match="true points of image 1 are not finite"):
        pa_mpjpe_mm(good, bad)
    with pytest.raises(ValueError, match="true points of image 2 all coincide"):
        pa_mpjpe_mm(good, good * np.array([1, 1, 0])[:, None, None])
    with pytest.raises(ValueError, match=r"\(images, points, 3\), not \(14, 3\)"):
        mpjpe_mm(good[0], good[0], root=())
    with pytest.raises(ValueError, match="predicted points are"):
        mpjpe_mm(good[:, :5], good, root=())
    with pytest.raises(ValueError, match="one root an image"):
        mpvpe_mm(good, good, roots_m=(good[:1, 0], good[:1, 0]))
    with pytest.raises(ValueError, match="2 predictions for 3 images"):
        f_score(good[:2], good, threshold_mm=5)
    for call in (lambda e: pck(e, 5), pck_auc):
        with pytest.raises(ValueError, match="one is NaN or negative"):
            call([1.0, np.nan])
        with pytest.raises(ValueError, match="no errors"):
            call([])


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30), st.floats(1, 80), st.integers(2, 50))
def test_pck_auc_is_its_slow_twin(errors, limit, num):
    score = pck_auc(errors, limit_mm=limit, num_thresholds=num)
    # A threshold may round to either side of an error: the twin's own tell by how much that can move the area.
    low, high = (plain.pck_auc([error * (1 + tiny) for error in errors], limit, num) for tiny in (1e-12, -1e-12))
    assert low - 1e-9 <= score <= high + 1e-9
    assert 0 <= score <= 1


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30))
def test_pck_auc_nears_its_closed_form(errors):
    exact = np.clip(1 - np.array(errors) / 50, 0, 1).mean()
    assert pck_auc(errors, num_thresholds=20001) == pytest.approx(exact, abs=1e-4)


def test_pck_counts_the_threshold_itself():
    assert pck([[4.0, 5.0], [5.1, np.inf]], 5) == 0.5
    assert pck_auc(np.zeros(4)) == 1
    assert pck_auc(np.full(4, 51.0)) == 0


@given(SEEDS, st.floats(20, 400), st.integers(1, 9), st.integers(1, 9))
def test_f_score_is_its_slow_twin(seed, threshold_mm, num_predicted, num_true):
    predicted, true = points(seed, 2, num_predicted, 0.1), points(seed + 1, 2, num_true, 0.1)
    scores = f_score(predicted, true, threshold_mm=threshold_mm)
    twin = [plain.f_score(p, t, threshold_mm) for p, t in zip(predicted, true, strict=True)]
    np.testing.assert_allclose(scores, twin, rtol=1e-12)
    np.testing.assert_allclose(f_score(true, predicted, threshold_mm=threshold_mm), scores)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert (f_score(predicted, true, threshold_mm=2 * threshold_mm) >= scores - 1e-12).all()


def test_f_score_closed_forms():
    true = np.array([[[0, 0, 0], [1.0, 0, 0]]])
    half = np.array([[[0, 0, 0.004], [5.0, 0, 0]]])
    np.testing.assert_allclose(f_score(true, true, threshold_mm=5), 1)
    np.testing.assert_allclose(f_score(half, true, threshold_mm=5), 0.5)
    np.testing.assert_allclose(f_score(half, true, threshold_mm=4), 0)  # near is strictly less
    np.testing.assert_allclose(f_score(half[:, :1], true, threshold_mm=5), 2 / 3)  # all are right, half is found
