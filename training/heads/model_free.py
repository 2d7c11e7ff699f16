"""A mesh without a body model: a transformer over joints and vertices, each of which sees the image.

Shape letters: `B` images, `N` patches of an image, `D` width of a token, `J` joints, `Y` vertices of the coarsest mesh, `Q` = J + Y
queries, `X` vertices of the full mesh.
Source: Lin et al., End-to-end human pose and mesh reconstruction with transformers (METRO), CVPR 2021; written from their
description.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

HIDDEN = (1024, 256, 128)
BETWEEN = (512, 128)  # width of what one transformer hands to the next
LAYERS, HEADS, FEED_FORWARD, DROPOUT = 4, 4, 3072, 0.1
MAX_QUERIES = 512
HIDDEN_SHARE = 0.3  # at most this share of an image's queries is hidden in training
HIDDEN_VALUE = 0.01
CAMERA_HIDDEN = 250


class FreeMesh(NamedTuple):
    """Joints (B, J, 3), vertices from the coarsest mesh to the full one, (B, Y, 3) to (B, X, 3), and the camera.

    Metres from the root; the camera is scale, x and y of an orthographic one, (B, 3), in units of half the crop.
    """

    joints: Tensor
    vertices: tuple[Tensor, ...]
    camera_B3: Tensor


class ModelFreeHead(nn.Module):
    """Three transformers of falling width, then linear maps from the coarse mesh to finer ones.

    Args:
        dim: width of an image token.
        num_patches: image tokens, `N`.
        template_Q3: joints, then coarse vertices, of the body at rest, metres from its root: where a query stands.
        num_joints: `J`.
        num_vertices: of the coarsest mesh and each finer one; 431, 1723 and 6890 for SMPL.

    Raises:
        ValueError: the template does not hold the joints and the coarsest mesh, or holds more than 512 points.
    """

    template_Q3: Tensor

    def __init__(
        self, dim: int, num_patches: int, *, template_Q3: Tensor, num_joints: int, num_vertices: Sequence[int]
    ) -> None:
        super().__init__()
        queries = num_joints + num_vertices[0]
        if template_Q3.shape != (queries, 3) or queries > MAX_QUERIES:
            shape = tuple(template_Q3.shape)
            raise ValueError(f"the template must be ({queries}, 3) with at most {MAX_QUERIES} points, not {shape}")
        self.num_joints = num_joints
        self.register_buffer("template_Q3", template_Q3.clone().float())
        self.spread = nn.Conv1d(num_patches, queries, kernel_size=1)
        inputs, outputs = (dim + 3, *BETWEEN), (*BETWEEN, 3)
        self.trunk = nn.Sequential(
            *(_Stage(width, hidden, out) for width, hidden, out in zip(inputs, HIDDEN, outputs, strict=True))
        )
        for module in self.trunk.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.finer = nn.ModuleList(nn.Linear(few, many) for few, many in pairwise(num_vertices))
        self.camera1 = nn.Linear(3, 1)
        self.camera2 = nn.Linear(num_vertices[0], CAMERA_HIDDEN)
        self.camera3 = nn.Linear(CAMERA_HIDDEN, 3)

    def forward(self, tokens_BND: Tensor, *, generator: torch.Generator | None = None) -> FreeMesh:
        """Joints, vertices and camera of each image; in training some queries are hidden, drawn from the generator."""
        template_BQ3 = self.template_Q3.expand(len(tokens_BND), -1, -1)
        queries_BQD = torch.cat([template_BQ3, self.spread(tokens_BND)], dim=2)
        if self.training:
            hidden_BQ = hidden_queries(len(queries_BQD), queries_BQD.shape[1], generator=generator)
            queries_BQD = queries_BQD.masked_fill(hidden_BQ[..., None].to(queries_BQD.device), HIDDEN_VALUE)
        points_BQ3 = self.trunk(queries_BQD)
        joints, coarse = points_BQ3[:, : self.num_joints], points_BQ3[:, self.num_joints :]
        vertices = [coarse]
        for finer in self.finer:
            vertices.append(finer(vertices[-1].mT).mT)
        camera_B3 = self.camera3(self.camera2(self.camera1(coarse)[..., 0]))
        return FreeMesh(joints=joints, vertices=tuple(vertices), camera_B3=camera_B3)


def hidden_queries(num_images: int, num_queries: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw which queries are hidden: of each image a share that is uniform between none and `HIDDEN_SHARE`.

    Returns:
        (B, Q) bool, on the CPU.
    """
    num_B1 = (torch.rand(num_images, 1, generator=generator) * HIDDEN_SHARE * num_queries).long()
    rank_BQ = torch.rand(num_images, num_queries, generator=generator).argsort(dim=1).argsort(dim=1)
    return rank_BQ < num_B1


class _Stage(nn.Module):
    """One post-norm transformer with learned places, and a linear shortcut around it."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.embed = nn.Linear(width, hidden)
        self.places = nn.Parameter(torch.empty(MAX_QUERIES, hidden))
        nn.init.normal_(self.places, std=0.02)
        self.drop = nn.Dropout(DROPOUT)
        self.layers = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    hidden, HEADS, FEED_FORWARD, DROPOUT, activation="gelu", layer_norm_eps=1e-12, batch_first=True
                )
                for _ in range(LAYERS)
            )
        )
        self.out = nn.Linear(hidden, out)
        self.shortcut = nn.Linear(width, out)

    def forward(self, x_BQD: Tensor) -> Tensor:
        hidden = self.layers(self.drop(self.embed(x_BQD) + self.places[: x_BQD.shape[1]]))
        points: Tensor = self.out(hidden) + self.shortcut(x_BQD)
        return points
