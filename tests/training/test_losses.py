import pytest
import torch

from tests.training import plain_croco
from training.losses import completed_patches, pair_losses, patch_statistics, patchify, unpatchify


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_patchify_equals_nested_loops():
    images = noise(2, 3, 12, 12)
    torch.testing.assert_close(patchify(images, 4), torch.stack([plain_croco.patches_of(image, 4) for image in images]))


def test_patchify_round_trip():
    images = noise(2, 3, 32, 32)
    assert torch.equal(unpatchify(patchify(images, 8), 8), images)


def test_zero_prediction_scores_767_of_768():
    """Unbiased variance makes the squared values of a normalised patch average (P - 1) / P; any useful model is below."""
    patches = patchify(noise(2, 3, 224, 224) + 3.0, 16)
    masked = torch.arange(0, 196, 2).expand(2, -1)
    losses = pair_losses(torch.zeros_like(patches), patches, masked)
    torch.testing.assert_close(losses, torch.full((2,), 767 / 768), rtol=0, atol=2e-6)


def test_only_masked_patches_count():
    patches, predicted = noise(2, 9, 12), noise(2, 9, 12, seed=1)
    masked = torch.tensor([[0, 3], [5, 8]])
    losses = pair_losses(predicted, patches, masked)
    other = predicted.clone()
    other[0, 4] += 100
    assert torch.equal(pair_losses(other, patches, masked), losses)
    other[0, 3] += 100
    changed = pair_losses(other, patches, masked)
    assert changed[0] > losses[0]
    assert changed[1] == losses[1]


def test_a_flat_patch_has_a_finite_loss_and_gradient():
    patches, predicted = torch.full((1, 4, 12), 0.3), noise(1, 4, 12).requires_grad_()
    loss = pair_losses(predicted, patches, torch.tensor([[1, 2]])).mean()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(predicted.grad).all()


def test_gradient_of_the_loss():
    patches = noise(1, 3, 6).double()
    predicted = noise(1, 3, 6, seed=1).double().requires_grad_()

    def loss(values):
        return pair_losses(values, patches, torch.tensor([[0, 2]])).double()

    # The loss is computed in single precision, hence the coarse step and tolerance.
    assert torch.autograd.gradcheck(loss, (predicted,), eps=1e-2, atol=1e-3, rtol=1e-3)


def test_a_perfect_prediction_shows_the_image_and_visible_patches_are_pasted():
    patches = noise(2, 9, 12)
    mean, std = patch_statistics(patches)
    masked = torch.tensor([[0, 3, 4], [1, 2, 8]])
    torch.testing.assert_close(completed_patches((patches - mean) / std, patches, masked), patches)
    shown = completed_patches(torch.zeros_like(patches), patches, masked)
    torch.testing.assert_close(shown[0, 3], mean[0, 3].expand(12))
    assert torch.equal(shown[0, 5], patches[0, 5])


def test_patch_that_does_not_fit():
    with pytest.raises(RuntimeError, match="shape"):
        patchify(noise(1, 3, 10, 10), 4)
