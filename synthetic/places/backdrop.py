"""What stands behind a person when it is no drawn room: pure data, a part of a scene.

`backdrops` finds the files, draws backdrops and turns them into pixels or surfaces.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["images", "panoramas", "meshes"]
Axis = Literal["y", "z"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backdrop:
    """A background from files.

    Attributes:
        kind: "images": each view has a photo of its own; "panoramas": one photo all around; "meshes": a room to stand in.
        names: files, relative to the folder of backgrounds: one for each view of images, else a single one.
        crops: of images, for each view the side of the square over the photo's shorter side, and its place across and down in
            the remaining space, each in [0, 1].
        yaw_rad: by how much a panorama or a mesh is turned around the vertical, counterclockwise from above.
        up: which axis of a mesh's file points up: "y" or "z".
        place_m: where in a mesh the person stands, (x, floor, z) with y up, metres.
    """

    kind: Kind
    names: tuple[str, ...]
    crops: tuple[tuple[float, float, float], ...] = ()
    yaw_rad: float = 0.0
    up: Axis = "y"
    place_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
