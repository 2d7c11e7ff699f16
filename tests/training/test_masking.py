import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from training.masking import human_masks, num_visible, patch_coverage, uniform_masks
from training.noise import uniform_noise

RATIOS = st.sampled_from([0.0, 0.29, 0.5, 0.6, 0.75, 0.9]) | st.floats(0, 0.99)


@st.composite
def batches(draw):
    """Human patches of a batch, some images without a silhouette, and the noise."""
    num_pairs, num_patches = draw(st.integers(1, 6)), draw(st.sampled_from([4, 16, 49, 196]))
    share = draw(hnp.arrays(np.float64, num_pairs, elements=st.sampled_from([0.0, 0.01, 0.3, 0.8, 1.0])))
    seed = draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    return rng.random((num_pairs, num_patches)) < share[:, None], rng.random((num_pairs, num_patches))


@given(batches(), RATIOS)
def test_every_patch_is_once_visible_or_masked_in_raster_order(batch, ratio):
    human, noise = batch
    masks = human_masks(human, noise, mask_ratio=ratio)
    assert (np.diff(masks.visible_BV, axis=1) > 0).all()
    assert (np.diff(masks.masked_BM, axis=1) > 0).all()
    together = np.sort(np.concatenate([masks.visible_BV, masks.masked_BM], axis=1), axis=1)
    assert (together == np.arange(human.shape[1])).all()


@given(batches(), RATIOS)
def test_the_published_share_of_every_person_is_visible(batch, ratio):
    human, noise = batch
    masks = human_masks(human, noise, mask_ratio=ratio)
    shown = np.zeros_like(human)
    np.put_along_axis(shown, masks.visible_BV, True, axis=1)
    kept = []
    for row, seen in zip(human, shown, strict=True):
        row = row if row.any() else ~row
        kept.append(num_visible(int(row.sum()), ratio))
        assert (row & seen).sum() == kept[-1]
    assert masks.visible_BV.shape[1] == max(kept)


@given(batches(), RATIOS)
def test_full_length_is_feasible_for_every_image(batch, ratio):
    human, noise = batch
    full = num_visible(human.shape[1], ratio)
    assert human_masks(human, noise, mask_ratio=ratio, pad_to=full).visible_BV.shape == (len(human), full)


@given(batches(), RATIOS)
def test_masks_of_a_fixed_length_do_not_depend_on_the_rest_of_the_batch(batch, ratio):
    human, noise = batch
    full = num_visible(human.shape[1], ratio)
    together = human_masks(human, noise, mask_ratio=ratio, pad_to=full).visible_BV
    alone = [
        human_masks(human[i : i + 1], noise[i : i + 1], mask_ratio=ratio, pad_to=full).visible_BV
        for i in range(len(human))
    ]
    assert (together == np.concatenate(alone)).all()


def test_no_silhouette_means_human_everywhere_and_a_full_length_batch():
    noise = uniform_noise(1, np.arange(2), 196)
    human = np.zeros((2, 196), dtype=bool)
    human[0, :40] = True
    masks = human_masks(human, noise, mask_ratio=0.75)
    assert masks.visible_BV.shape == (2, 49)
    assert (masks.visible_BV[0] < 40).sum() == 10
    assert (masks.visible_BV[1] == uniform_masks(noise[1:], mask_ratio=0.75).visible_BV[0]).all()


@pytest.mark.parametrize(
    ("num", "ratio", "wanted"), [(196, 0.75, 49), (196, 0.9, 20), (100, 0.29, 71), (10, 0.0, 10), (1, 0.75, 1)]
)
def test_pinned_numbers_of_visible_patches(num, ratio, wanted):
    """n - floor(r n), by hand; 0.29 * 100 is 28.999... in floating point and must still hide 29."""
    assert num_visible(num, ratio) == wanted


def test_human_patches_are_drawn_uniformly():
    human = np.zeros((1, 16), dtype=bool)
    human[0, [1, 5, 6, 9]] = True
    noise = uniform_noise(3, np.arange(4000), 16)
    visible = human_masks(np.repeat(human, 4000, axis=0), noise, mask_ratio=0.75, pad_to=4).visible_BV
    counts = np.bincount(visible.ravel(), minlength=16)
    # One of 4 human patches and 3 of 12 others: 1000 each, standard deviation sqrt(4000 * 0.25 * 0.75) = 27.
    assert (np.abs(counts - 1000) < 5 * 27).all()


@pytest.mark.parametrize("pad_to", [3, 17])
def test_a_length_that_does_not_fit_is_refused(pad_to):
    human = np.ones((1, 64), dtype=bool)
    with pytest.raises(ValueError, match="not feasible for every image of this batch; 16 are"):
        human_masks(human, uniform_noise(0, np.arange(1), 64), mask_ratio=0.75, pad_to=pad_to)


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(0, 32), st.integers(0, 32), st.sampled_from([7, 14, 28]))
def test_coverage_equals_counting_pixels(seed, x, y, side):
    cells = np.random.default_rng(seed).random((2, 64, 64)) < 0.4
    offsets = np.array([[x, y], [y, x]])
    fast = patch_coverage(cells, offsets, crop_px=224, side=side)
    for i, (left, top) in enumerate(offsets):
        pixels = cells[i].repeat(4, axis=0).repeat(4, axis=1)[top : top + 224, left : left + 224]
        patch = 224 // side
        slow = [pixels[r : r + patch, c : c + patch].mean() for r in range(0, 224, patch) for c in range(0, 224, patch)]
        np.testing.assert_allclose(fast[i], slow, rtol=1e-6)


def test_noise_belongs_to_its_place():
    whole = uniform_noise(7, np.arange(100), 50)
    assert (uniform_noise(7, np.array([42, 3]), 50) == whole[[42, 3]]).all()
    assert (uniform_noise(7, np.array([42]), 10) == whole[42, :10]).all()
    assert not (uniform_noise(8, np.arange(100), 50) == whole).any()


def test_noise_is_uniform_and_independent():
    noise = uniform_noise(1, np.arange(2000), 100)
    assert ((noise >= 0) & (noise < 1)).all()
    counts = np.histogram(noise, bins=20, range=(0, 1))[0]
    # 200,000 numbers in 20 bins: 10,000 each, standard deviation 97.
    assert (np.abs(counts - 10_000) < 5 * 97).all()
    # Neighbours along either axis: correlation has standard deviation 1 / sqrt(200,000) = 0.0022.
    for first, second in ((noise[1:], noise[:-1]), (noise[:, 1:], noise[:, :-1])):
        assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.012
