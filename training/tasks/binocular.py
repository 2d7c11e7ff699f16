"""The meshes of the first of two images, from the decoder that has seen both.

The second picture is another view or a neighbouring moment of the same person or hand, as its dataset has it; the answer is
for the first one.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from training.tasks.body_mesh import BodyMesh
from training.tasks.hand_mesh import HandMesh


@dataclass(frozen=True, kw_only=True)
class BodyTwo(BodyMesh):
    """SMPL's parameters from the decoder's pooled tokens."""

    name: ClassVar[str] = "body_two"
    reads: ClassVar[Literal["pooled", "dense", "two"]] = "two"


@dataclass(frozen=True, kw_only=True)
class HandTwo(HandMesh):
    """MANO's parameters from the decoder's pooled tokens."""

    name: ClassVar[str] = "hand_two"
    reads: ClassVar[Literal["pooled", "dense", "two"]] = "two"
