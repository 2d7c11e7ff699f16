import pytest
import torch
from torch.nn import functional

from tests.training.heads.fitting import fit, noise, num_parameters
from training.heads.classifier import Classifier


@pytest.mark.parametrize(("hidden", "count"), [(None, 768 * 18 + 18), (256, 768 * 256 + 256 + 256 * 18 + 18)])
def test_parameters_and_shape(hidden, count):
    head = Classifier(768, 18, hidden=hidden)
    assert num_parameters(head) == count
    assert head(noise(3, 768)).shape == (3, 18)


@pytest.mark.parametrize("hidden", [None, 32])
def test_sixteen_random_labels_are_learned_by_heart(hidden):
    torch.manual_seed(0)
    head, features, labels = Classifier(64, 18, hidden=hidden), 1.5 * noise(16, 64), torch.arange(16) * 5 % 18
    first, last = fit([head], lambda: functional.cross_entropy(head(features), labels), steps=100, rate=2e-2)
    assert first > 2
    assert last < 0.01
    assert torch.equal(head(features).argmax(1), labels)
