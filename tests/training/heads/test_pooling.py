import torch
from torch.nn import functional

from tests.training.heads.fitting import fit, noise, num_parameters
from training.heads.classifier import Classifier
from training.heads.pooling import NUMBERS, OfPooled, Pool


def test_of_a_mean_only_the_mean_counts():
    pool, tokens = Pool(16, 9), noise(2, 9, 16)
    assert (pool.width, num_parameters(pool)) == (16, 0)
    torch.testing.assert_close(pool(tokens[:, torch.randperm(9)]), pool(tokens))
    torch.testing.assert_close(pool(tokens), tokens.sum(1) / 9)


def test_places_are_told_apart():
    pool, tokens = Pool(24, 9, "places"), noise(2, 9, 24)
    assert pool.width == 9 * NUMBERS == pool(tokens).shape[1]
    changed = tokens.clone()
    changed[:, 4] += 1
    differs = (pool(changed) != pool(tokens)).reshape(2, 9, NUMBERS).any(dim=2)
    assert differs.nonzero()[:, 1].tolist() == [4, 4]


def test_where_a_token_stands_is_learned_from_places_and_cannot_be_from_a_mean():
    torch.manual_seed(0)
    labels = torch.arange(32) % 9
    tokens = torch.zeros(32, 9, 24)
    tokens[torch.arange(32), labels] = 1.0
    last = {how: _fitted(how, tokens, labels) for how in ("mean", "places")}
    assert last["places"] < 0.1
    assert last["mean"] > 2


def _fitted(how, tokens, labels):
    pool = Pool(24, 9, how)
    head = OfPooled(pool, Classifier(pool.width, 9))
    return fit([head], lambda: functional.cross_entropy(head([tokens]), labels), steps=60, rate=2e-2)[1]
