"""Who is rendered: a posable model that wears something. Renderers draw figures and know nothing of bodies or hands.

Shape letters: X vertices, F faces of the model, T triangles shown, K corners (a vertex with its texture coordinate), U texture
coordinates, S texture side, J joints.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from manifests.errors import SyntheticError
from synthetic.camera import framed_points
from synthetic.labels import LIMB_M
from synthetic.looks.scans import TextureWardrobe
from synthetic.looks.shade import Shade
from synthetic.looks.wardrobe import Wardrobe
from synthetic.models.body import EXTRA_JOINTS, BodyModel
from synthetic.motion.library import Clip, ground_shift
from synthetic.scene import Scene

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

_OPEN_GROUPS = 3  # skirt and long hair, see `makehuman.GROUPS`
_AT_ONCE = 8  # instants: to read the model takes longer than to pose it


@dataclass(frozen=True, slots=True, kw_only=True)
class Dressed:
    """A figure's look, ready to draw.

    Attributes:
        texture_SS4: (S, S, 4) uint8, RGB and what each texel is (`Figure.garments`); row 0 is texture coordinate v = 0.
        faces_T: (T,) which faces of the model are shown: first those of closed surfaces, then skirts and hair, then what is
            no part of the person, as the sleeve of a hand: it is drawn, but is in no label.
        num_closed: how many are of closed surfaces, whose backs nobody sees.
        num_own: how many are of the person.
        verts_T3: (T, 3) their vertices.
        shown_N: (N,) the vertices that are shown.
        corners_K2: (K, 2) different pairs of (vertex, texture coordinate), which is what a GPU calls a vertex.
        triangles_T3: (T, 3) the same triangles, as indices into `corners_K2`.
        worn: what its figure needs to pose it.
    """

    texture_SS4: Bytes
    faces_T: Ints
    num_closed: int
    num_own: int
    verts_T3: Ints
    shown_N: Ints
    corners_K2: Ints
    triangles_T3: Ints
    worn: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Posed:
    """A figure at one instant, in the world.

    Attributes:
        verts_X3: (X, 3) metres, dressed.
        normals_X3: (X, 3) unit.
        open_X: (X,) the share of the light around that reaches each vertex; less where other limbs are near.
        shown_N3: (N, 3) the vertices that are shown, metres.
        framed_M3: (M, 3) the points that a camera frames, metres.
        joints_J3: (J, 3) joints of the model, metres.
        keypoints: (K, 3) metres, by the name of the set: "coco17", "penn13", ...
        parameters: the model's own, world frame: "global_orient" (3,), "body_pose" or "hand_pose", "betas" (10,), "transl" (3,);
            axis-angle in radians, metres.
        root_3: the joint that "global_orient" turns around, before "transl".
        time_s: seconds since the motion's start.
    """

    verts_X3: Floats
    normals_X3: Floats
    open_X: Floats
    shown_N3: Floats
    framed_M3: Floats
    joints_J3: Floats
    keypoints: Mapping[str, Floats]
    parameters: Mapping[str, Floats]
    root_3: Floats
    time_s: float


class Figure(Protocol):
    """A model that can be dressed and posed as a scene says.

    Attributes:
        faces_F3: (F, 3) vertex indices.
        uvs_U2: (U, 2) texture coordinates, origin at the lower left.
        part_F: (F,) 1 + the joint that moves each face most.
        template_X3: (X, 3) the model at rest, metres: canonical places on its surface.
        group_F: (F,) which layer a face belongs to: skin, skirt, hair, ...
        joints_set: name of the joints, as "smpl24".
        garments: what the alpha of textures counts, from 0 "background".
        limb_m: a joint lies at most this far under the surface of its own limb, clothes included.
        sha256: hash of the model's file.
    """

    faces_F3: Ints
    uvs_U2: npt.NDArray[np.float32]
    part_F: npt.NDArray[np.uint8]
    template_X3: Floats
    group_F: Ints
    joints_set: str
    garments: tuple[str, ...]
    limb_m: float
    sha256: str

    def dress(self, scene: Scene) -> Dressed:
        """Draw the look of a scene's person."""
        ...

    def pose(self, scene: Scene, instant: int, dressed: Dressed) -> Posed:
        """Put the scene's person where it is at an instant."""
        ...


class BodyFigure:
    """A dressed body that moves by clips.

    Args:
        body: the model.
        clips: motions by name; must hold every clip that the scenes name.
        textures: dresses a converted SMPL in scans; by default clothes of our own are drawn.

    Raises:
        SyntheticError: the body cannot be dressed.
    """

    joints_set: str = "smpl24"
    limb_m: float = LIMB_M

    def __init__(self, body: BodyModel, clips: Mapping[str, Clip], textures: TextureWardrobe | None = None) -> None:
        self._body = body
        self._clips = clips  # not copied: a library reads a clip when it is asked for
        self._wardrobe = Wardrobe(body) if textures is None else textures
        self.garments: tuple[str, ...] = self._wardrobe.parts
        self.sha256 = body.sha256
        self.faces_F3 = body.faces_F3
        self.uvs_U2 = self._wardrobe.uvs_U2
        self.part_F = part_of_faces(body.weights_XJ, body.faces_F3)
        self.template_X3, self.group_F = body.template_X3, body.face_group_F
        self._shade = Shade(body.template_X3, body.faces_F3, body.face_group_F)
        self._landmarks = [body.extra_vertices[name] for name in EXTRA_JOINTS[:5]]
        self._naked: tuple[Clip, object, Floats32, Floats32] | None = None

    def dress(self, scene: Scene) -> Dressed:
        """Draw the look of a scene's person."""
        outfit = self._wardrobe.dress(scene.look)
        is_open = self.group_F[outfit.face_ids_F] >= _OPEN_GROUPS
        order = np.argsort(is_open, kind="stable")
        return Dressed(
            texture_SS4=outfit.texture_SS4,
            faces_T=outfit.face_ids_F[order],
            num_closed=int((~is_open).sum()),
            num_own=len(order),
            verts_T3=outfit.faces_F3[order],
            shown_N=np.unique(outfit.faces_F3),
            corners_K2=outfit.corners_K2,
            triangles_T3=outfit.triangles_F3[order],
            worn=(outfit, self._shade.weights(outfit.face_ids_F)),
        )

    def pose(self, scene: Scene, instant: int, dressed: Dressed) -> Posed:
        """Put the scene's person on the floor as its clip has it.

        Raises:
            SyntheticError: the scene names a clip that was not given.
            IndexError: there is no such instant.
        """
        body, clip = self._body, self._clip(scene.clip)
        outfit, patches_PX = dressed.worn
        index = _instant_of(clip, scene.phases[instant])
        pose_J3 = np.asarray(clip.pose_TJ3[index], dtype=np.float64)
        bare_X3, bare_J3 = self._pose_naked(scene, instant, clip)
        shift = ground_shift(clip, index, body, bare_X3, bare_J3)
        naked_X3, joints_J3 = bare_X3 + shift, bare_J3 + shift
        verts_X3, normals_X3 = self._wardrobe.clothe(naked_X3, outfit)
        shown_N3 = verts_X3[dressed.shown_N]
        whole = scene.framing == "full"
        return Posed(
            verts_X3=verts_X3,
            normals_X3=normals_X3,
            open_X=self._shade.open(verts_X3, normals_X3, patches_PX, lamp=scene.light.lamp, shadow=scene.light.shadow),
            shown_N3=shown_N3,
            framed_M3=shown_N3 if whole else framed_points(joints_J3, scene.framing, scene.side),
            joints_J3=joints_J3,
            keypoints=body_keypoints(joints_J3, naked_X3[self._landmarks]),
            parameters={
                "global_orient": pose_J3[0],
                "body_pose": pose_J3[1:].ravel(),
                "betas": np.array(scene.betas),
                "transl": shift,
            },
            root_3=joints_J3[0] - shift,
            time_s=index / clip.fps,
        )

    def _pose_naked(self, scene: Scene, instant: int, clip: Clip) -> tuple[Floats32, Floats32]:
        """Vertices (X, 3) and joints (24, 3) of an instant, posed together with those beside it."""
        group, place = divmod(instant % len(scene.phases), _AT_ONCE)
        phases = scene.phases[group * _AT_ONCE :][:_AT_ONCE]
        asked = (phases, scene.betas)
        if self._naked is None or self._naked[0] is not clip or self._naked[1] != asked:
            poses_TJ3 = np.stack([clip.pose_TJ3[_instant_of(clip, phase)] for phase in phases])
            self._naked = (clip, asked, *self._body.pose(poses_TJ3, scene.betas, np.zeros((len(phases), 3))))
        _, _, verts_TX3, joints_TJ3 = self._naked
        return verts_TX3[place], joints_TJ3[place]

    def _clip(self, name: str) -> Clip:
        if name not in self._clips:
            raise SyntheticError(
                f"the scene moves by the clip {name!r}, which was not loaded",
                where=f"clips: {', '.join(sorted(self._clips)) or 'none'}",
                hint="give the folder that holds it, or name other clips in the recipe",
            )
        return self._clips[name]


def _instant_of(clip: Clip, phase: float) -> int:
    return min(int(phase * clip.num_instants), clip.num_instants - 1)


def part_of_faces(weights_XJ: npt.NDArray[np.floating], faces_F3: Ints) -> npt.NDArray[np.uint8]:
    """1 + the joint that moves each face most, (F,): with SMPL's 24 joints the 24 parts that SURREAL labels."""
    return np.asarray(1 + weights_XJ[faces_F3].sum(axis=1).argmax(axis=1), dtype=np.uint8)


def body_keypoints(joints_J3: Floats, face_53: Floats) -> dict[str, Floats]:
    """Keypoints of other sets from SMPL's joints.

    Args:
        joints_J3: (24, 3).
        face_53: (5, 3) nose, right eye, left eye, right ear, left ear on the surface.

    Returns:
        "coco17" (17, 3), and "penn13" (13, 3) whose head is the middle between nose and ears.
    """
    limbs = joints_J3[
        [16, 17, 18, 19, 20, 21, 1, 2, 4, 5, 7, 8]
    ]  # left and right: shoulder, elbow, wrist, hip, knee, ankle
    return {
        "coco17": np.concatenate([face_53[[0, 2, 1, 4, 3]], limbs]),
        "penn13": np.concatenate([face_53[[0, 3, 4]].mean(axis=0, keepdims=True), limbs]),
    }
