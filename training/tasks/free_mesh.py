"""The model-free head as an option of the mesh tasks: which vertices it starts from, and its losses.

Shape letters: `B` images, `J` joints among its queries, `V` points of the vocabulary, `X` vertices.
Source: Lin et al., METRO, CVPR 2021: losses and weights as published with its code; written from their description.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from training.heads.model_free import FreeMesh, ModelFreeHead
from training.tasks.base import Tensors
from training.tasks.mesh_losses import joints_loss, keypoints_loss, mean_of_known
from training.tasks.mesh_model import NUM_SHAPES, MeshModel, farthest_points, points_from_verts

JOINTS, VERTICES, KEYPOINTS = 1000.0, 100.0, 100.0
COARSE = {"SMPL": (431, 1723), "MANO": (195,)}  # vertices of the coarser meshes


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """How a model's mesh is thinned out.

    Attributes:
        points_VX: which vertices make which point.
        coarse: indices of the vertices of each coarser mesh, a beginning of the next one's.
    """

    points_VX: Tensor
    coarse: tuple[Tensor, ...]


@lru_cache(maxsize=8)
def levels_of(model: MeshModel) -> Levels:
    """Thin out a model's mesh, in about two seconds; the same object for the same model."""
    sizes = COARSE[model.layout]
    order = torch.from_numpy(farthest_points(model.template_X3.cpu().numpy(), sizes[-1]))
    return Levels(points_from_verts(model), tuple(order[:size] for size in sizes))


class FreeMeshHead(nn.Module):
    """The transformer over joints and vertices, on the last tokens.

    Args:
        dim: width of a token.
        num_patches: of an image.
        model: whose mesh is predicted.
        rotations_R33: the pose that queries stand for, upright before the camera.
        places: which points of the vocabulary are queried.
        root: the point that all is measured from.
    """

    def __init__(
        self, dim: int, num_patches: int, *, model: MeshModel, rotations_R33: Tensor, places: Sequence[int], root: int
    ) -> None:
        super().__init__()
        levels, model = levels_of(model), model.cpu()
        verts_X3 = model(rotations_R33[None], torch.zeros(1, NUM_SHAPES)).verts_BX3[0]
        points_V3 = levels.points_VX @ verts_X3
        queries_Q3 = torch.cat([points_V3[list(places)], verts_X3[levels.coarse[0]]]) - points_V3[root]
        sizes = (*(len(index) for index in levels.coarse), len(verts_X3))
        self.head = ModelFreeHead(dim, num_patches, template_Q3=queries_Q3, num_joints=len(places), num_vertices=sizes)

    def forward(self, maps_BND: Sequence[Tensor]) -> FreeMesh:
        """Joints, meshes and camera of each image."""
        mesh: FreeMesh = self.head(maps_BND[-1])
        return mesh


def orthographic(points_BV3: Tensor, camera_B3: Tensor, unit_m: float) -> Tensor:
    """(B, V, 2) where points are seen in the crop, from -1 to 1."""
    return camera_B3[:, None, :1] * (points_BV3[..., :2] / unit_m + camera_B3[:, None, 1:])


def free_loss(
    outputs: FreeMesh,
    target: Tensors,
    *,
    model: MeshModel,
    places: Sequence[int],
    root: int,
    root_V: Tensor,
    unit_m: float,
) -> Mapping[str, Tensor]:
    """Weighted terms: joints of the queries and joints of the mesh, vertices of all meshes, keypoints of both.

    Args:
        outputs: of the head.
        target: as `MeshTask.target` has it.
        model: whose mesh it is, on the device of the outputs.
        places: which points of the vocabulary are queried.
        root: the point that vertices are measured from.
        root_V: shares of the points that joints are measured from.
        unit_m: metres of the camera's unit.
    """
    levels, verts = levels_of(model), [mesh.float() for mesh in outputs.vertices]
    known_B, (true_BX3, _) = target["rotations_known"], model(target["rotations"], target["betas"])
    points_VX = levels.points_VX.to(true_BX3.device)
    true_BV3 = points_VX @ true_BX3
    scored_V = torch.zeros_like(root_V)
    scored_V[list(places)] = 1
    has_B11 = known_B[:, None, None] > 0
    # Joints of the annotated mesh where there is one, else those that are annotated.
    aim = {
        "points_m": torch.where(has_B11, true_BV3, target["points_m"]),
        "points_weight": torch.where(has_B11[..., 0], scored_V / len(places), target["points_weight"]),
        "root": torch.where(has_B11[..., 0], root_V, target["root"]),
    }
    of_mesh_BV3 = points_VX @ verts[-1]
    at_J = torch.tensor(list(places), device=root_V.device)
    queried_BV3 = torch.zeros_like(of_mesh_BV3).index_copy(1, at_J, outputs.joints.float())
    # A query that is not there has no place: neither as a point, nor as the root of others.
    rooted_B1 = ((aim["root"] > 0) <= (scored_V > 0)).all(dim=1, keepdim=True)
    of_queries = aim | {"points_weight": aim["points_weight"] * scored_V * rooted_B1}
    joints = joints_loss(of_mesh_BV3, aim) + joints_loss(queried_BV3, of_queries)
    meshes = [true_BX3[:, index.to(true_BX3.device)] for index in levels.coarse] + [true_BX3]
    apart = [
        (predicted - (mesh - true_BV3[:, root, None])).abs().mean(dim=(1, 2))
        for predicted, mesh in zip(verts, meshes, strict=True)
    ]
    camera_B3 = outputs.camera_B3.float()
    seen = keypoints_loss(orthographic(of_mesh_BV3, camera_B3, unit_m), target)
    queried = {**target, "keypoints_weight": target["keypoints_weight"] * scored_V}
    seen = seen + keypoints_loss(orthographic(queried_BV3, camera_B3, unit_m), queried)
    share = round(1 / len(meshes), 2)
    return {
        "joints": JOINTS * joints,
        "vertices": VERTICES * share * mean_of_known(torch.stack(apart).sum(dim=0), known_B),
        "keypoints": KEYPOINTS * seen,
    }
