"""Points of bodies and hands by name: what each dataset calls a joint, and what of a model that is.

A model gives one long list of points, its *vocabulary*: its joints, then landmarks on its skin, then what the user's regressors
add. Every set of joints or keypoints is a selection from it, so datasets of different sets train together.

Shape letters: `V` points of the vocabulary, `K` points of a set.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SMPL24 = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle", "spine3",
    "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hand", "right_hand",
)  # fmt: skip
LANDMARKS = (
    "nose", "right_eye", "left_eye", "right_ear", "left_ear",
    "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel",
    *(f"{side}_{finger}" for side in ("left", "right") for finger in ("thumb", "index", "middle", "ring", "pinky")),
)  # fmt: skip
"""Vertices of a body's file, in the order of its `extra_vertices`."""
EXTRA9 = (
    "lsp_right_hip", "lsp_left_hip", "lsp_neck", "lsp_head_top", "mpii_pelvis", "mpii_thorax", "h36m_spine_of_extra",
    "h36m_jaw_of_extra", "h36m_head_of_extra",
)  # fmt: skip
"""Rows of SPIN's J_regressor_extra.npy."""
H36M17 = (
    "h36m_pelvis", "h36m_left_hip", "h36m_left_knee", "h36m_left_ankle", "h36m_right_hip", "h36m_right_knee",
    "h36m_right_ankle", "h36m_spine", "h36m_neck", "h36m_jaw", "h36m_head_top", "h36m_left_shoulder", "h36m_left_elbow",
    "h36m_left_wrist", "h36m_right_shoulder", "h36m_right_elbow", "h36m_right_wrist",
)  # fmt: skip
"""Rows of J_regressor_h36m.npy."""
LSP14 = tuple(H36M17[row] for row in (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10))
"""The joints that 3DPW's protocol scores: ankle, knee, hip of the right, then of the left, ..., neck, head top."""

_MANO_FINGERS = ("index", "middle", "pinky", "ring", "thumb")
FINGERS = ("thumb", "index", "middle", "ring", "pinky")
MANO16 = ("wrist", *(f"{finger}{knuckle}" for finger in _MANO_FINGERS for knuckle in (1, 2, 3)))
TIPS = tuple(f"{finger}_tip" for finger in FINGERS)
"""Vertices of a hand's file, in the order of its `tip_vertices`."""
HAND21 = ("wrist", *(f"{finger}{knuckle}" for finger in FINGERS for knuckle in (1, 2, 3, "_tip")))

_ARMS_LEGS = tuple(
    f"{side}_{joint}" for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle") for side in ("left", "right")
)
_LSP_LIMBS = (
    "right_ankle", "right_knee", "lsp_right_hip", "lsp_left_hip", "left_knee", "left_ankle", "right_wrist", "right_elbow",
    "right_shoulder", "left_shoulder", "left_elbow", "left_wrist",
)  # fmt: skip
_UNUSED = ""

SETS: dict[str, tuple[str, ...]] = {
    "smpl24": SMPL24,
    "coco17": ("nose", "left_eye", "right_eye", "left_ear", "right_ear", *_ARMS_LEGS),
    "coco18": (
        "nose", "neck", *(f"right_{joint}" for joint in ("shoulder", "elbow", "wrist")),
        *(f"left_{joint}" for joint in ("shoulder", "elbow", "wrist")), "right_hip", "right_knee", "right_ankle", "left_hip",
        "left_knee", "left_ankle", "right_eye", "left_eye", "right_ear", "left_ear",
    ),
    "penn13": (_UNUSED, *_ARMS_LEGS),  # its head is no point of a model
    "mpii16": (
        *_LSP_LIMBS[:6], "mpii_pelvis", "mpii_thorax", "lsp_neck", "lsp_head_top", *_LSP_LIMBS[6:],
    ),
    # The first 25 repeat the others as a detector saw them: SPIN gives them no weight.
    "spin49": (
        *(_UNUSED,) * 25, *_LSP_LIMBS, "lsp_neck", "lsp_head_top", *EXTRA9[4:], "nose", "left_eye", "right_eye", "left_ear",
        "right_ear",
    ),
    "h36m17": H36M17,
    "mpii_3dhp17": (
        "h36m_head_top", "h36m_neck", *(f"h36m_right_{joint}" for joint in ("shoulder", "elbow", "wrist")),
        *(f"h36m_left_{joint}" for joint in ("shoulder", "elbow", "wrist")),
        *(f"h36m_right_{joint}" for joint in ("hip", "knee", "ankle")),
        *(f"h36m_left_{joint}" for joint in ("hip", "knee", "ankle")), "h36m_pelvis", "h36m_spine", "h36m_jaw",
    ),
    "hand21": HAND21,
    "mano16": MANO16,
}  # fmt: skip
"""Order of each set, by name; a point that no model has is empty, and never weighs."""

# Where a regressor is not given, the model's own joint stands for limbs; trunk and head have no stand-in.
_STAND_INS = {f"{of}_{limb}": limb for of in ("lsp", "h36m") for limb in _ARMS_LEGS}


class Vocabulary:
    """The points that one model has, by name.

    Args:
        names: in the model's order.

    Attributes:
        mirrored: (V,) which point each becomes when left and right change names.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._place = {name: place for place, name in enumerate(self.names)}
        self.mirrored: Ints = np.array([self._place[other_side(name)] for name in self.names])

    def __len__(self) -> int:
        """Number of points."""
        return len(self.names)

    def places(self, names: Sequence[str]) -> Ints:
        """(K,) where these points are, -1 for those that the model has not."""
        found = (self._place.get(name, self._place.get(_STAND_INS.get(name, ""), -1)) for name in names)
        return np.array(list(found), dtype=np.int64)

    def spread(self, points_KC: npt.ArrayLike, weight_K: npt.ArrayLike, set_name: str) -> tuple[Floats, Floats]:
        """Put points of a set where they belong.

        Args:
            points_KC: of the set; those of no weight may be NaN.
            weight_K: how much each is trusted, 0 not at all.
            set_name: one of `SETS`.

        Returns:
            (V, C), 0 where nothing is known; weights (V,), 0 there.

        Raises:
            ValueError: the set is unknown or has another number of points.
        """
        if set_name not in SETS:
            raise ValueError(f"{set_name!r} is no set of points; known are {', '.join(SETS)}")
        points, weight = np.asarray(points_KC, np.float64), np.asarray(weight_K, np.float64)
        if len(points) != len(SETS[set_name]):
            raise ValueError(f"{set_name} has {len(SETS[set_name])} points, not {len(points)}")
        places = self.places(SETS[set_name])
        known = (places >= 0) & (weight > 0) & np.isfinite(points).all(axis=1)
        points_VC, weight_V = np.zeros((len(self), points.shape[1])), np.zeros(len(self))
        points_VC[places[known]], weight_V[places[known]] = points[known], weight[known]
        return points_VC, weight_V

    def root(self, names: Sequence[str]) -> Floats:
        """(V,) shares of the points whose mean is the root of some: both hips of a body, the wrist of a hand; zeros if unknown."""
        places = self.places([name for name in names if name == "wrist" or name.endswith("_hip")])
        share_V = np.zeros(len(self))
        if len(places) and (places >= 0).all():
            share_V[places] = 1 / len(places)
        return share_V


def other_side(name: str) -> str:
    """The name of a point's mirror image."""
    if "left" in name:
        return name.replace("left", "right")
    return name.replace("right", "left")
