import copy

import pytest
import torch

from tests.training.heads.fitting import fit, noise
from training.heads.dense import DenseHead
from training.heads.features import Binocular, Monocular, Queried
from training.heads.regressor import IterativeRegressor, Mesh
from training.losses import patchify
from training.model.croco import Architecture, CroCo
from training.model.mae import MAE

BUILDS = [("cosine", CroCo), ("rope", CroCo), ("cosine", MAE)]


def network(positions="cosine", build=CroCo):
    torch.manual_seed(0)
    sizes = {"image_px": 32, "patch_px": 16, "enc_dim": 32, "enc_depth": 3, "enc_heads": 2}
    model = build(Architecture(**sizes, dec_dim=16, dec_depth=2, dec_heads=2, positions=positions))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def slow_encoder(model, images):
    """Tokens after each block, the last ones normed, with the blocks called by hand."""
    x = model.patch_embed(patchify(images, 16))
    if isinstance(model, MAE):
        x = torch.cat([model.cls_token.expand(len(x), -1, -1), x], dim=1) + model.pos_embed
        blocks, norm = model.blocks, model.norm
    else:
        x = x + model.enc_pos_embed if model.architecture.positions == "cosine" else x
        blocks, norm = model.enc_blocks, model.enc_norm
    turn = (model.enc_rotation_cos, model.enc_rotation_sin) if model.architecture.positions == "rope" else None
    maps = []
    for block in blocks:
        x = block(x) if turn is None else block(x, turn)
        maps.append(x)
    return [tokens[:, -4:] for tokens in [*maps[:-1], norm(maps[-1])]]


def slow_decoder(model, images, others):
    x, memory = (model.decoder_embed(slow_encoder(model, some)[-1]) for some in (images, others))
    turns = ()
    if model.architecture.positions == "cosine":
        x, memory = x + model.dec_pos_embed, memory + model.dec_pos_embed
    else:
        turns = ((model.dec_rotation_cos, model.dec_rotation_sin),) * 2
    maps = []
    for block in model.dec_blocks:
        x = block(x, memory, *turns)
        maps.append(x)
    return [*maps[:-1], model.dec_norm(maps[-1])]


@pytest.mark.parametrize(("positions", "build"), BUILDS)
@pytest.mark.parametrize("recompute", [False, True])
def test_tokens_of_one_image(positions, build, recompute):
    model, images = network(positions, build), noise(2, 3, 32, 32)
    expected = slow_encoder(model, images)
    alone = Monocular(copy.deepcopy(model), hooks=(0, 2, 1))
    alone.network.recompute = recompute
    maps = alone(images)
    assert alone.widths == (32, 32, 32)
    for tokens, place in zip(maps, (0, 2, 1), strict=True):
        torch.testing.assert_close(tokens, expected[place])
    (last,) = Monocular(model)(images)
    torch.testing.assert_close(last, expected[-1])
    maps[0].sum().backward()  # recomputing must not look for hooks that are gone


@pytest.mark.parametrize("positions", ["cosine", "rope"])
def test_tokens_of_two_images(positions):
    model, images, others = network(positions), noise(2, 3, 32, 32), noise(2, 3, 32, 32, seed=1)
    expected = slow_encoder(model, images) + slow_decoder(model, images, others)
    both = Binocular(model, hooks=range(5))
    assert both.widths == (32, 32, 32, 16, 16)
    for tokens, twin in zip(both(images, others), expected, strict=True):
        torch.testing.assert_close(tokens, twin)
    assert Binocular(network(positions)).widths == (16,)


def test_the_other_image_matters_in_the_decoder_alone():
    both, images = Binocular(network(), hooks=(2, 4)), noise(2, 3, 32, 32)
    one, other = both(images, noise(2, 3, 32, 32, seed=1)), both(images, noise(2, 3, 32, 32, seed=2))
    torch.testing.assert_close(one[0], other[0])
    assert not torch.allclose(one[1], other[1], atol=1e-3)


@pytest.mark.parametrize(("positions", "build"), BUILDS)
def test_no_weight_is_left_without_a_use(positions, build):
    """Distributed training stops at a weight without a gradient; and one is no use in a checkpoint."""
    images = noise(2, 3, 32, 32)
    modules = [(Monocular(network(positions, build)), (images,))]
    if build is CroCo:
        modules.append((Binocular(network(positions)), (images, images.flip(-1))))
    for module, inputs in modules:
        module(*inputs)[-1].square().sum().backward()
        assert [name for name, p in module.named_parameters() if p.grad is None] == []
    names = {name.removeprefix("network.") for name in modules[0][0].state_dict()}
    assert names <= set(network(positions, build).state_dict())  # each once, under the name it had


def test_hooks_are_gone_after_an_error():
    alone = Monocular(network())
    with pytest.raises(RuntimeError):
        alone(noise(2, 3, 64, 64))
    assert not any(block._forward_hooks for block in alone.network.enc_blocks)
    assert alone(noise(2, 3, 32, 32))[0].shape == (2, 4, 32)


@pytest.mark.parametrize(("build", "depth"), [(Monocular, 3), (Binocular, 5)])
def test_blocks_that_do_not_exist(build, depth):
    with pytest.raises(ValueError, match=rf"no block {depth} to read from: the network has {depth}"):
        build(network(), hooks=(0, depth))


def test_a_dense_head_reads_both_parts_of_the_network():
    both = Binocular(network(), hooks=(2, 3, 4, 4))
    head = DenseHead(both.widths, 7)
    assert head(both(noise(1, 3, 32, 32), noise(1, 3, 32, 32, seed=1))).shape == (1, 7, 32, 32)


def test_a_network_and_its_head_learn_sixteen_pairs_by_heart():
    """The meshes differ by the second image alone: the decoder must carry them to the head."""
    both = Binocular(network())
    mean = Mesh(rotations_BR33=torch.eye(3).expand(2, -1, -1), shape_BS=torch.zeros(3), camera_B3=torch.ones(3))
    head = IterativeRegressor(16, mean=mean)
    images, others = noise(1, 3, 32, 32).expand(16, -1, -1, -1), noise(16, 3, 32, 32, seed=1)
    shapes = noise(16, 3, seed=2)

    def loss():
        return (head(both(images, others)[-1].mean(1)).shape_BS - shapes).square().mean()

    first, last = fit([both, head], loss, steps=100, rate=1e-3)
    assert first > 0.5
    assert last < 0.01


@pytest.mark.parametrize("positions", ["cosine", "rope"])
def test_a_picture_asks_each_image(positions):
    model, images, asks = network(positions), noise(3, 3, 32, 32), noise(1, 3, 32, 32, seed=1)
    expected = slow_decoder(model, asks.expand(3, -1, -1, -1), images)[-1]
    queried = Queried(model, asks[0])
    assert queried.widths == (16,)
    (tokens,) = queried(images)
    torch.testing.assert_close(tokens, expected)
    tokens[:2].sum().backward()
    assert [name for name, p in queried.named_parameters() if p.grad is None] == []
    # Two encoders: what one learns the other does not.
    before = tokens.detach()[0]
    with torch.no_grad():
        for parameter in queried.network.query.parameters():
            parameter.add_(0.1)
    assert (queried(images)[0][0] - before).abs().max() > 1e-3
    torch.testing.assert_close(queried.network.encode(patchify(images, 16)), slow_encoder(queried.network, images)[-1])


def test_a_queried_network_keeps_its_pictures_encoder():
    first, other = Queried(network(), noise(3, 32, 32)), Queried(network(), noise(3, 32, 32))
    with torch.no_grad():
        for parameter in first.network.parameters():
            parameter.mul_(0.9)
    other.network.load_state_dict(first.network.state_dict())
    images = noise(1, 3, 32, 32, seed=2)
    torch.testing.assert_close(first(images), other(images))
    assert "query_CHW" not in first.state_dict()
