"""Terms that the losses of all meshes are made of.

Shape letters: `B` images, `V` points of the vocabulary. Targets are as `MeshTask.target` has them.
"""

from torch import Tensor

from training.tasks.base import Tensors, of_batch


def keypoints_loss(projected_BV2: Tensor, target: Tensors) -> Tensor:
    """Mean over images, points of their sets, x and y of the squared distance by confidence."""
    squared_BV = (projected_BV2 - target["keypoints"]).square().mean(dim=2)
    return (squared_BV * target["keypoints_weight"]).sum(dim=1).mean()


def joints_loss(points_BV3: Tensor, target: Tensors) -> Tensor:
    """The same in three dimensions, both from their root, over the images whose joints are known."""
    weight_BV, root_B1V = target["points_weight"], target["root"][:, None]
    predicted, true = (points - root_B1V @ points for points in (points_BV3, target["points_m"]))
    each_B = ((predicted - true).square().mean(dim=2) * weight_BV).sum(dim=1)
    return mean_of_known(each_B, weight_BV.any(dim=1))


def mean_of_known(each_B: Tensor, known_B: Tensor) -> Tensor:
    """Mean over the images of which something is known; 0 if there is none."""
    known_B = known_B.to(each_B.dtype)
    return (each_B * known_B).sum() / of_batch(known_B.sum())
