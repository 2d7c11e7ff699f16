import pytest
import torch
from torch.nn import functional

from tests.training.heads.fitting import fit, noise, num_parameters
from training.heads.dense import NUM_PARTS, DenseHead, SurfaceMaps


def doubled(x):
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def slow_residual(x, unit):
    inner = functional.conv2d(x.clamp(min=0), unit.conv1.weight, unit.conv1.bias, padding=1)
    return x + functional.conv2d(inner.clamp(min=0), unit.conv2.weight, unit.conv2.bias, padding=1)


def slow_forward(head, maps):
    """In the published order, with the sizes of each level asserted."""
    side = round(maps[0].shape[1] ** 0.5)
    levels = []
    for index, (tokens, block) in enumerate(zip(maps, head.reassemble, strict=True)):
        rows = [tokens[:, row * side : (row + 1) * side] for row in range(side)]
        level = block(torch.stack(rows, dim=1).permute(0, 3, 1, 2))
        assert level.shape[1:] == (256, *[(4 * side, 2 * side, side, (side + 1) // 2)[index]] * 2)
        levels.append(level)
    path = None
    for level, fusion in reversed(list(zip(levels, head.fuse, strict=True))):
        if path is None:
            path = level
        else:
            path = path[:, :, : level.shape[2], : level.shape[3]] + slow_residual(level, fusion.skip)
        path = fusion.out(doubled(slow_residual(path, fusion.refine)))
    return head.predict(doubled(head.up(path)))


def test_parameters():
    """The published head has 20.1 M; one residual unit of it, two 3 x 3 convolutions, is never run."""
    with torch.device("meta"):
        counts = [num_parameters(DenseHead(widths, 73)) for widths in ((768,) * 4, (768, 512, 512, 512))]
    unit = 2 * (256 * 256 * 9 + 256)
    assert counts[0] + unit == 20_068_297
    assert counts[0] - counts[1] == 256 * (192 + 384 + 768)


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_every_pixel_is_predicted_in_the_published_order(side):
    torch.manual_seed(0)
    widths = (8, 6, 6, 4)
    head = DenseHead(widths, 5)
    maps = [noise(2, side * side, width, seed=index) for index, width in enumerate(widths)]
    with torch.no_grad():
        out, twin = head(maps), slow_forward(head, maps)
    assert out.shape == (2, 5, 16 * side, 16 * side)
    torch.testing.assert_close(out, twin, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("patch_px", "side"), [(4, 14), (4, 5), (8, 7), (32, 2)])
def test_maps_are_as_large_as_the_image_whatever_its_patches(patch_px, side):
    head = DenseHead((8,) * 4, 5, patch_px=patch_px, features=32)
    sizes = {}
    for px, block in zip((4, 8, 16, 32), head.reassemble, strict=True):
        block.register_forward_hook(lambda *call, px=px: sizes.update({px: call[2].shape[-1]}))
    with torch.no_grad():
        out = head([noise(1, side * side, 8, seed=seed) for seed in range(4)])
    assert out.shape == (1, 5, patch_px * side, patch_px * side)
    assert sizes == {px: -(-patch_px * side // px) for px in (4, 8, 16, 32)}


def test_every_parameter_and_map_has_a_gradient():
    head = DenseHead((8,) * 4, 3)
    maps = [noise(1, 4, 8, seed=seed).requires_grad_() for seed in range(4)]
    head(maps).square().sum().backward()
    assert [name for name, p in head.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert all(tokens.grad.any() for tokens in maps)


def test_sixteen_random_part_maps_are_learned_by_heart():
    """A random part for each patch of each image, which every pixel of the patch's middle must tell."""
    torch.manual_seed(0)
    head = DenseHead((16,) * 4, 1 + NUM_PARTS, features=32)
    maps = [noise(16, 4, 16, seed=seed) for seed in range(4)]
    parts = torch.randint(0, 1 + NUM_PARTS, (16, 2, 2), generator=torch.Generator().manual_seed(9))
    middle = torch.tensor([8, 24])

    def loss():
        return functional.cross_entropy(head(maps)[:, :, middle][..., middle], parts)

    first, last = fit([head], loss, steps=70, rate=3e-3)
    assert first > 2
    assert last < 0.05


def test_channels_have_names():
    maps = SurfaceMaps.split(torch.arange(73.0)[None, :, None, None])
    assert maps.parts.flatten().tolist() == list(range(25))
    assert maps.u.flatten().tolist() == list(range(25, 49))
    assert maps.v.flatten().tolist() == list(range(49, 73))
    with pytest.raises(RuntimeError, match="split"):
        SurfaceMaps.split(torch.zeros(1, 72, 2, 2))


def test_three_maps_are_too_few():
    with pytest.raises(ValueError, match="reads 4 maps of tokens, not 3"):
        DenseHead((8, 8, 8), 1)


def test_patches_of_odd_sizes_are_refused():
    with pytest.raises(ValueError, match="a power of two, 4 at least, not 14"):
        DenseHead((8,) * 4, 1, patch_px=14)
