from dataclasses import replace

import pytest
import torch

from tests.training import plain_croco
from training.losses import pair_losses, patchify
from training.model.croco import Architecture, CroCo, base_base_rope, base_small, base_small_rope, large_base_rope
from training.model.mae import MAE
from training.model.positions import cosine_positions, resize_positions, rotary_positions, rotate

SMALL = {
    "image_px": 16,
    "patch_px": 4,
    "enc_dim": 32,
    "enc_depth": 2,
    "enc_heads": 2,
    "dec_dim": 16,
    "dec_depth": 2,
    "dec_heads": 2,
}


def small(positions):
    return Architecture(**SMALL, positions=positions)


def shaken(architecture, seed=0, build=CroCo):
    """A network in double precision whose norms and biases are not at their trivial initial values."""
    torch.manual_seed(seed)
    model = build(architecture).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def example(architecture, num_pairs=3, num_visible=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shape = (num_pairs, 3, architecture.image_px, architecture.image_px)
    target = torch.randn(shape, generator=generator, dtype=torch.float64)
    reference = torch.randn(shape, generator=generator, dtype=torch.float64)
    order = torch.rand(num_pairs, architecture.num_patches, generator=generator).argsort(dim=1)
    return target, reference, order[:, :num_visible].sort(dim=1).values, order[:, num_visible:].sort(dim=1).values


def v1_state_shapes():
    """Names and shapes of the public CroCo v1 weights, written out from their published layout."""
    shapes = {"mask_token": (1, 1, 512), "enc_pos_embed": (196, 768), "dec_pos_embed": (196, 512)}

    def linear(name, width_out, width_in):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (width_out, width_in), (width_out,)

    def norm(name, width):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (width,), (width,)

    shapes["patch_embed.proj.weight"], shapes["patch_embed.proj.bias"] = (768, 3, 16, 16), (768,)
    for i in range(12):
        for part in ("norm1", "norm2"):
            norm(f"enc_blocks.{i}.{part}", 768)
        linear(f"enc_blocks.{i}.attn.qkv", 2304, 768)
        linear(f"enc_blocks.{i}.attn.proj", 768, 768)
        linear(f"enc_blocks.{i}.mlp.fc1", 3072, 768)
        linear(f"enc_blocks.{i}.mlp.fc2", 768, 3072)
    norm("enc_norm", 768)
    linear("decoder_embed", 512, 768)
    for i in range(8):
        for part in ("norm1", "norm2", "norm3", "norm_y"):
            norm(f"dec_blocks.{i}.{part}", 512)
        linear(f"dec_blocks.{i}.attn.qkv", 1536, 512)
        linear(f"dec_blocks.{i}.attn.proj", 512, 512)
        for part in ("projq", "projk", "projv", "proj"):
            linear(f"dec_blocks.{i}.cross_attn.{part}", 512, 512)
        linear(f"dec_blocks.{i}.mlp.fc1", 2048, 512)
        linear(f"dec_blocks.{i}.mlp.fc2", 512, 2048)
    norm("dec_norm", 512)
    linear("prediction_head", 768, 512)
    return shapes


def test_v1_state_dict_has_the_public_names_and_shapes():
    with torch.device("meta"):
        state = CroCo(base_small()).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == v1_state_shapes()
    assert len(state) == 349


@pytest.mark.parametrize(
    ("architecture", "parameters", "keys"),
    [
        (base_small(), 120_076_288, 349),
        (base_small_rope(), 120_076_288, 347),
        (base_base_rope(), 200_269_824, 443),
        (large_base_rope(), 417_918_720, 587),
    ],
    ids=["base_small", "base_small_rope", "base_base_rope", "large_base_rope"],
)
def test_sizes_of_the_published_networks(architecture, parameters, keys):
    with torch.device("meta"):
        model = CroCo(architecture)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert len(model.state_dict()) == keys


def test_weight_decay_leaves_out_the_published_number_of_values():
    with torch.device("meta"):
        model = CroCo(base_small())
    assert sum(p.numel() for n, p in model.named_parameters() if p.ndim == 1 or n.endswith(".bias")) == 210_432


@pytest.mark.parametrize("positions", ["cosine", "rope"])
def test_outputs_loss_and_gradients_equal_the_plain_twin(positions):
    architecture = small(positions)
    model = shaken(architecture)
    target, reference, visible, masked = example(architecture)
    predicted = model(patchify(target, 4), patchify(reference, 4), visible)
    loss = pair_losses(predicted.double(), patchify(target, 4), masked).double().mean()
    loss.backward()

    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    names = [name for name, _ in model.named_parameters()]
    for name in names:
        state[name].requires_grad_()
    for b in range(len(target)):
        plain = plain_croco.complete(target[b], reference[b], state, architecture, visible[b].tolist())
        torch.testing.assert_close(predicted[b], plain, rtol=1e-6, atol=1e-6)
    plain_loss = plain_croco.loss(target, reference, state, architecture, visible)
    plain_loss.backward()
    torch.testing.assert_close(loss, plain_loss, rtol=1e-6, atol=0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, state[name].grad, rtol=1e-4, atol=1e-6, msg=name)


# Loss of a network of the published size whose weights are `plain_croco.made_state`, on a pair of `plain_croco.numbers`, masked
# at 0.75, as the twin has it too. Regenerate: python -m pytest -m slow tests/training/test_croco.py -k published_size, and read
# what it says of `plain_loss`.
PUBLISHED_SIZE = {
    "base_small": (base_small, 1.77825),
    "base_small_rope": (base_small_rope, 1.69779),
    "base_base_rope": (base_base_rope, 1.77282),
    "large_base_rope": (large_base_rope, 1.71363),
}


@pytest.mark.slow
@pytest.mark.timeout(600)  # 400 million weights of the largest
@pytest.mark.parametrize("name", PUBLISHED_SIZE)
def test_networks_of_the_published_size_equal_the_plain_twin(name):
    build, wanted = PUBLISHED_SIZE[name]
    architecture = build()
    with torch.device("meta"):
        model = CroCo(architecture)
    model = model.to_empty(device="cpu")
    # Tables that are not in the state dict are empty too: they are taken from where they are made.
    state = plain_croco.made_state(filled_tables(model, architecture))
    model.load_state_dict(state)
    target, reference = (plain_croco.numbers((3, 224, 224), start).mul(3).float() for start in (0, 200_000))
    visible = plain_croco.numbers((196,), 9).argsort()[:49].sort().values
    masked = torch.tensor([j for j in range(196) if j not in visible.tolist()])
    with torch.no_grad():
        predicted = model(patchify(target[None], 16), patchify(reference[None], 16), visible[None])
        plain = plain_croco.complete(target, reference, state, architecture, visible.tolist())
        loss = pair_losses(predicted, patchify(target[None], 16), masked[None])
        plain_loss = plain_croco.loss_of(plain, target, architecture, visible.tolist())
    torch.testing.assert_close(predicted[0], plain, rtol=1e-3, atol=2e-4)
    assert float(loss) == pytest.approx(float(plain_loss), rel=1e-5)
    assert float(loss) == pytest.approx(wanted, rel=2e-5)


def filled_tables(model, architecture):
    """The network's state dict with its tables of positions as they are made."""
    for part, dim, heads in (
        ("enc", architecture.enc_dim, architecture.enc_heads),
        ("dec", architecture.dec_dim, architecture.dec_heads),
    ):
        if architecture.positions == "cosine":
            getattr(model, f"{part}_pos_embed").copy_(cosine_positions(architecture.side, dim))
        else:
            cos, sin = rotary_positions(architecture.side, dim // heads)
            getattr(model, f"{part}_rotation_cos").copy_(cos)
            getattr(model, f"{part}_rotation_sin").copy_(sin)
    return model.state_dict()


@pytest.mark.parametrize("positions", ["cosine", "rope"])
def test_a_masked_reference_equals_the_plain_twin(positions):
    architecture = small(positions)
    model = shaken(architecture)
    target, reference, visible, _ = example(architecture)
    other = example(architecture, num_visible=7, seed=5)[2]
    predicted = model(patchify(target, 4), patchify(reference, 4), visible, other)
    for b in range(len(target)):
        seen = visible[b].tolist(), other[b].tolist()
        plain = plain_croco.complete(target[b], reference[b], model.state_dict(), architecture, *seen)
        torch.testing.assert_close(predicted[b], plain, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("positions", ["cosine", "rope"])
def test_several_references_equal_the_plain_twin_and_one_shown_again_is_one(positions):
    architecture = small(positions)
    model = shaken(architecture)
    target, reference, visible, _ = example(architecture)
    others = torch.stack([example(architecture, seed=seed)[1] for seed in (7, 8)], dim=1)
    shown = torch.cat([reference[:, None], others], dim=1)
    predicted = model(patchify(target, 4), patchify(shown.flatten(0, 1), 4), visible)
    for b in range(len(target)):
        plain = plain_croco.complete(
            target[b], reference[b], model.state_dict(), architecture, visible[b].tolist(), further=others[b]
        )
        torch.testing.assert_close(predicted[b], plain, rtol=1e-6, atol=1e-6)
    alone = model(patchify(target, 4), patchify(reference, 4), visible)
    assert not torch.allclose(predicted, alone)
    again = model(patchify(target, 4), patchify(reference.repeat_interleave(3, dim=0), 4), visible)
    torch.testing.assert_close(again, alone)


def test_an_mae_equals_its_plain_twin():
    architecture = small("cosine")
    model = shaken(architecture, build=MAE)
    images, _, visible, _ = example(architecture)
    predicted = model(patchify(images, 4), visible)
    for b in range(len(images)):
        plain = plain_croco.complete_alone(images[b], model.state_dict(), architecture, visible[b].tolist())
        torch.testing.assert_close(predicted[b], plain, rtol=1e-6, atol=1e-6)
    assert model.encode(patchify(images, 4)).shape == (3, architecture.num_patches, architecture.enc_dim)


def test_an_mae_has_the_public_names_and_shapes():
    """Those of `mae_pretrain_vit_base.pth` and of the decoder that its authors' visualisation weights have."""
    with torch.device("meta"):
        state = {name: tuple(value.shape) for name, value in MAE(base_small()).state_dict().items()}
    encoder = [name for name in state if name.split(".")[0] in MAE.ENCODER]
    assert (len(encoder), len(state)) == (150, 254)
    for name, shape in {
        "cls_token": (1, 1, 768),
        "pos_embed": (1, 197, 768),
        "patch_embed.proj.weight": (768, 3, 16, 16),
        "blocks.11.attn.qkv.weight": (2304, 768),
        "blocks.0.mlp.fc1.bias": (3072,),
        "norm.bias": (768,),
        "decoder_embed.weight": (512, 768),
        "mask_token": (1, 1, 512),
        "decoder_pos_embed": (1, 197, 512),
        "decoder_blocks.7.attn.proj.weight": (512, 512),
        "decoder_norm.weight": (512,),
        "decoder_pred.weight": (768, 512),
    }.items():
        assert state[name] == shape, name


def test_activations_computed_again_give_the_same_gradients():
    for build, arguments in ((CroCo, 3), (MAE, 2)):
        architecture = small("cosine")
        model = shaken(architecture, build=build)
        target, reference, visible, _ = example(architecture)
        inputs = (
            (patchify(target, 4), patchify(reference, 4), visible) if arguments == 3 else (patchify(target, 4), visible)
        )
        gradients = []
        for model.recompute in (False, True):
            model.zero_grad()
            model(*inputs).square().sum().backward()
            gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
        for name, value in gradients[0].items():
            assert torch.equal(gradients[1][name], value), name


def test_masked_pixels_of_the_target_never_reach_the_network():
    architecture = small("cosine")
    model = shaken(architecture)
    target, reference, visible, masked = example(architecture)
    patches = patchify(target, 4)
    other = patches.scatter(1, masked[..., None].expand(-1, -1, patches.shape[-1]), 7.0)
    assert not torch.equal(patches, other)
    assert torch.equal(model(patches, patchify(reference, 4), visible), model(other, patchify(reference, 4), visible))


def test_every_visible_patch_and_the_reference_matter():
    architecture = small("rope")
    model = shaken(architecture)
    target, reference, visible, _ = example(architecture, num_pairs=1)
    patches, seen = patchify(target, 4).requires_grad_(), patchify(reference, 4).requires_grad_()
    model(patches, seen, visible).square().sum().backward()
    touched = (patches.grad.abs().sum(-1) > 0).nonzero()[:, 1].tolist()
    assert touched == visible[0].tolist()
    assert (seen.grad.abs().sum(-1) > 0).all()


def test_without_a_mask_the_decoder_takes_all_tokens():
    architecture = small("cosine")
    model = shaken(architecture)
    target, reference, _, _ = example(architecture)
    everything = torch.arange(architecture.num_patches).expand(len(target), -1)
    t, r = model.encode(patchify(target, 4)), model.encode(patchify(reference, 4))
    torch.testing.assert_close(model.decode(t, r), model(patchify(target, 4), patchify(reference, 4), everything))


def test_the_network_is_one_graph():
    architecture = replace(small("cosine"), enc_depth=1, dec_depth=1)  # more blocks are more of the same
    model = CroCo(architecture)
    target, reference, visible, _ = example(architecture)
    arguments = (patchify(target.float(), 4), patchify(reference.float(), 4), visible)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*arguments), model(*arguments))


def test_cosine_table_by_its_formula():
    table = cosine_positions(3, 8)
    row, column = 2, 1
    angles = [10000.0 ** (-i / 2) for i in range(2)]
    wanted = [f(place * w) for place in (column, row) for f in (torch.sin, torch.cos) for w in torch.tensor(angles)]
    torch.testing.assert_close(table[row * 3 + column], torch.stack(wanted))


def test_rotation_keeps_lengths_and_depends_on_the_difference_of_places_only():
    side, width = 5, 16
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, width, generator=generator)
    rotation = rotary_positions(side, width)
    everywhere_q = rotate(q.expand(1, 1, side**2, width), rotation)
    everywhere_k = rotate(k.expand(1, 1, side**2, width), rotation)
    torch.testing.assert_close(everywhere_q.norm(dim=-1), q.norm(dim=-1).expand(1, 1, side**2))
    scores = (everywhere_q[0, 0] @ everywhere_k[0, 0].T).reshape(side, side, side, side)
    torch.testing.assert_close(scores[:-1, :-1, :-1, :-1], scores[1:, 1:, 1:, 1:], rtol=1e-4, atol=1e-4)
    assert (scores[0, 0] - scores[0, 0, 0, 0]).abs().max() > 0.1


def test_positions_stretch_to_another_grid():
    table = cosine_positions(14, 64)
    assert resize_positions(table, 14) is table
    smaller = resize_positions(table, 7)
    assert smaller.shape == (49, 64)
    # Slow waves are nearly linear between neighbours, so a patch twice as large sits between the old ones.
    slow = 15
    middle = table.reshape(14, 14, 64)[6:8, 6:8, slow].mean()
    torch.testing.assert_close(smaller.reshape(7, 7, 64)[3, 3, slow], middle, rtol=0, atol=1e-3)
    with pytest.raises(ValueError, match="square grid"):
        resize_positions(table[:-1], 7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_px": 5}, "multiple of patch_px"),
        ({"enc_heads": 3}, "enc_dim 32"),
        ({"dec_depth": 0}, "dec_depth must be positive"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Architecture(**{**SMALL, **change})
