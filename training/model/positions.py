"""Where a patch is: fixed cosine tables added to tokens (CroCo v1), or rotations of queries and keys (CroCo v2).

Shape letters: `B` images, `K` heads, `N` patches of an image, `V` tokens present, `D` width of a token, `A` width of a head.
Patches are counted row by row from the top left.
"""

import torch
from torch import Tensor
from torch.nn import functional

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines, each (N, A), or (B, V, A) where every image shows its own patches."""

ROTARY_BASE = 100.0


def cosine_positions(side: int, dim: int) -> Tensor:
    """Build the 2-D sine-cosine table of a square grid.

    Convention: the first half of the width encodes the column, the second half the row; each half is all sines, then all
    cosines, at frequencies 10000^(-i / (dim / 4)). Equal to MAE's table without its class row.

    Args:
        side: patches along a side.
        dim: width of a token, a multiple of 4.

    Returns:
        (side * side, dim), float32.

    Raises:
        ValueError: the width is not a multiple of 4.
    """
    if dim % 4:
        raise ValueError(f"cosine positions need a width that is a multiple of 4, not {dim}")
    frequency = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    row_N, column_N = _rows_and_columns(side)
    halves = []
    for place_N in (column_N, row_N):
        angle = place_N[:, None] * frequency
        halves += [angle.sin(), angle.cos()]
    return torch.cat(halves, dim=1).float()


def resize_positions(positions_ND: Tensor, side: int) -> Tensor:
    """Stretch a position table to another grid (bicubic, corners not aligned), to run trained weights at another size.

    Args:
        positions_ND: table of a square grid.
        side: patches along a side of the new grid.

    Raises:
        ValueError: the table is not that of a square grid.
    """
    old_side = round(len(positions_ND) ** 0.5)
    if old_side**2 != len(positions_ND):
        raise ValueError(f"a table of {len(positions_ND)} positions is not that of a square grid")
    if old_side == side:
        return positions_ND
    grid = positions_ND.reshape(1, old_side, old_side, -1).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    return grid.permute(0, 2, 3, 1).reshape(side * side, -1)


def rotary_positions(side: int, head_dim: int, base: float = ROTARY_BASE) -> Rotation:
    """Build the rotations of a square grid: the first half of each head turns with the row, the second with the column.

    Args:
        side: patches along a side.
        head_dim: width of a head, a multiple of 4.
        base: slowest wavelength over 2 pi, in patches (100: `RoPE100`).

    Returns:
        Cosines and sines, each (side * side, head_dim), float32.

    Raises:
        ValueError: the width is not a multiple of 4.
    """
    if head_dim % 4:
        raise ValueError(f"rotary positions need a head width that is a multiple of 4, not {head_dim}")
    half = head_dim // 2
    frequency = base ** (-torch.arange(0, half, 2, dtype=torch.float64) / half)
    angles = []
    for place_N in _rows_and_columns(side):
        angle = place_N[:, None] * frequency
        angles += [angle, angle]
    angle_NA = torch.cat(angles, dim=1)
    return angle_NA.cos().float(), angle_NA.sin().float()


def rotate(tokens_BKVA: Tensor, rotation: Rotation) -> Tensor:
    """Turn queries or keys by their position, each half of a head by itself.

    Convention: within a half, channel i pairs with channel i + A/4, as (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin).
    """
    cos, sin = (table if table.ndim == 2 else table[:, None] for table in rotation)
    y1, y2, x1, x2 = tokens_BKVA.chunk(4, dim=-1)
    turned_BKVA = torch.cat((-y2, y1, -x2, x1), dim=-1)
    return tokens_BKVA * cos.to(tokens_BKVA.dtype) + turned_BKVA * sin.to(tokens_BKVA.dtype)


def _rows_and_columns(side: int) -> tuple[Tensor, Tensor]:
    place = torch.arange(side, dtype=torch.float64)
    return place.repeat_interleave(side), place.repeat(side)
