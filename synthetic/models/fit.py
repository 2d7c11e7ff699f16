"""Fits a model to sampled people: principal shapes, and what keeps bent limbs round; for the body and the hand alike.

Shape letters: N sampled people or turns, J joints, X vertices, M vertices that a joint bends, S shapes, P coordinates.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from manifests.seeds import rng_for
from synthetic.rotations import matrix_from_axis_angle

Floats = npt.NDArray[np.float64]

NUM_SHAPES = 10


def shape_components(verts_NX3: Floats) -> tuple[Floats, Floats, float]:
    """Principal components of sampled people.

    Returns:
        The mean (X, 3), the components (X, 3, NUM_SHAPES), each as long as people spread on it, and their share of the variance.
    """
    num_people = len(verts_NX3)
    template_X3 = verts_NX3.mean(axis=0)
    spread_NP = (verts_NX3 - template_X3).reshape(num_people, -1)
    energy, vectors = np.linalg.eigh(spread_NP @ spread_NP.T)  # people are far fewer than coordinates
    energy, vectors = energy[::-1][:NUM_SHAPES], vectors[:, ::-1][:, :NUM_SHAPES]
    shapes_SP = (vectors / np.sqrt(energy)).T @ spread_NP * np.sqrt(energy / num_people)[:, None]
    shapes_SP *= np.sign(shapes_SP[np.arange(NUM_SHAPES), np.abs(shapes_SP).argmax(axis=1)])[:, None]
    shapes_X3S = shapes_SP.T.reshape(*template_X3.shape, NUM_SHAPES)
    return template_X3, shapes_X3S, float(energy.sum() / (spread_NP**2).sum())


def pose_correctives(
    template_X3: Floats, weights_XJ: Floats, joints_J3: Floats, parents: Sequence[int], *, num_samples: int = 60
) -> Floats:
    """Fit SMPL's pose blend shapes so that bent limbs keep their volume.

    One joint at a time is turned at random; the difference between turning each vertex by its own share of the
    angle (which is dual quaternion skinning of two bones) and linear blending is regressed on the nine numbers of (rotation - identity).

    Args:
        template_X3: (X, 3) T-pose.
        weights_XJ: (X, J) skinning weights.
        joints_J3: (J, 3) joints of the T-pose.
        parents: parent of each joint, each before its children; the root's is not read.
        num_samples: turns tried for each joint.

    Returns:
        (X, 3, 9 * (J - 1)): the layout of `posedirs`.
    """
    rng = rng_for("body", "pose correctives")
    dirs_X39J = np.zeros((len(template_X3), 3, len(parents) - 1, 9))
    descends = np.eye(len(parents), dtype=bool)
    for joint, parent in enumerate(parents[1:], start=1):
        descends[joint] |= descends[parent]  # [joint, ancestor]
    for joint in range(1, len(parents)):
        weight_X = weights_XJ[:, descends[:, joint]].sum(axis=1)
        moved = np.flatnonzero((weight_X > 0.01) & (weight_X < 0.99))
        turns_N3 = rng.normal(0.0, 0.6, (num_samples, 3))
        full_N33 = matrix_from_axis_angle(turns_N3)
        part_NM33 = matrix_from_axis_angle(turns_N3[:, None] * weight_X[moved, None])
        linear_NM33 = weight_X[moved, None, None] * full_N33[:, None] + (1 - weight_X[moved, None, None]) * np.eye(3)
        gap_NM3 = np.einsum("nmab,mb->nma", part_NM33 - linear_NM33, template_X3[moved] - joints_J3[joint])
        feature_N9 = (full_N33 - np.eye(3)).reshape(num_samples, 9)
        # Least squares over the posed gap: linear @ dirs @ feature = gap, 27 unknowns a vertex.
        design_NM = np.einsum("nk,nmab->nmakb", feature_N9, linear_NM33).reshape(num_samples, len(moved), 3, 27)
        normal_M = np.einsum("nmai,nmaj->mij", design_NM, design_NM) + 0.05 * np.eye(27)
        right_M = np.einsum("nmai,nma->mi", design_NM, gap_NM3)
        solved = np.linalg.solve(normal_M, right_M[..., None])[..., 0]
        dirs_X39J[moved, :, joint - 1] = solved.reshape(-1, 9, 3).transpose(0, 2, 1)
    dirs_X39J[np.abs(dirs_X39J) < 2e-5] = 0.0
    return np.asarray(dirs_X39J.reshape(len(template_X3), 3, -1))


__all__ = ["NUM_SHAPES", "pose_correctives", "shape_components"]
