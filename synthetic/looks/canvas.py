"""Where each texel of a body's texture lies on the T-pose, so that everything can be painted by its place in metres.

Shape letters: X vertices, F faces, N points, S texture side.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from synthetic.models.body import BodyModel
from synthetic.patterns import Floats32

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

TEXTURE_PX = 768
TEXEL_M = 0.0024  # about; charts differ
SKIN_GROUP, LEFT_EYE, RIGHT_EYE, SKIRT_GROUP, LOCKS_GROUP = range(5)
_GUTTER_PX = 9.0
_SOCKET_M, _EYE_SHOWS_M = (
    0.02,
    0.004,
)  # how far from an eye's middle its socket lies, and how far ahead of it eyelids begin
_FINGERS = ("thumb", "index", "middle", "ring", "pinky")


@dataclass(frozen=True, slots=True, kw_only=True)
class Landmarks:
    """Places on the T-pose, metres; of pairs, the left one, at positive x; `tips_53` are those of the fingers."""

    eye: Floats
    head_back_z: float
    head_front_z: float
    neck_y: float
    shoulder_x: float
    shoulder_y: float
    shoulder_z: float
    elbow_x: float
    wrist_x: float
    waist_y: float
    hip_y: float
    thigh_x: float
    knee_y: float
    ankle_y: float
    sole_y: float
    tips_53: Floats

    @classmethod
    def of(cls, body: BodyModel) -> "Landmarks":
        """Find them on a body that has eyes."""
        joints, skin = body.joints_J3, body.template_X3[body.skin_vertices]
        eye = body.template_X3[np.unique(body.faces_F3[body.face_group_F == LEFT_EYE])].mean(axis=0)
        head = skin[skin[:, 1] > eye[1]]
        return cls(
            eye=eye * (np.sign(eye[0]), 1, 1),
            head_back_z=float(head[:, 2].min()),
            head_front_z=float(head[:, 2].max()),
            neck_y=float(joints[12, 1]),
            shoulder_x=float(joints[16, 0]),
            shoulder_y=float(joints[16, 1]),
            shoulder_z=float(joints[16, 2]),
            elbow_x=float(joints[18, 0]),
            wrist_x=float(joints[20, 0]),
            waist_y=float(joints[3, 1] + 0.02),
            hip_y=float(joints[1, 1]),
            thigh_x=float((joints[1, 0] + joints[4, 0]) / 2),
            knee_y=float(joints[4, 1]),
            ankle_y=float(joints[7, 1]),
            sole_y=float(skin[:, 1].min()),
            tips_53=body.template_X3[[body.extra_vertices[f"l{finger}"] for finger in _FINGERS]],
        )


@dataclass(frozen=True, kw_only=True)
class Points:
    """Points on the T-pose, as columns (N,) of metres.

    Attributes:
        x: to the left of the person.
        y: up.
        z: forward.
        group: index into `makehuman.GROUPS`.
        hollow: how deep the surface lies in a hollow: eye sockets, armpits, between fingers.
        marks: landmarks of the body.
    """

    x: Floats32
    y: Floats32
    z: Floats32
    group: npt.NDArray[np.uint8]
    hollow: Floats32
    marks: Landmarks

    def __len__(self) -> int:
        return len(self.x)

    def take(self, which: Ints) -> "Points":
        """Some of them."""
        taken = Points(
            x=self.x[which],
            y=self.y[which],
            z=self.z[which],
            group=self.group[which],
            hollow=self.hollow[which],
            marks=self.marks,
        )
        # What was worked out for all is not worked out again for some.
        taken.__dict__.update({name: self.__dict__[name][which] for name in _DERIVED if name in self.__dict__})
        return taken

    @property
    def texel_m(self) -> float:
        """Distance between neighbouring texels: the skirt has few."""
        return 8 * TEXEL_M if len(self) and self.group[0] == SKIRT_GROUP else TEXEL_M

    @cached_property
    def side(self) -> Floats32:
        """Distance from the middle plane."""
        return np.abs(self.x)

    @cached_property
    def on_arm(self) -> npt.NDArray[np.bool_]:
        """Whether a point belongs to an arm."""
        return np.asarray((self.side > self.marks.shoulder_x) & (self.group == SKIN_GROUP))

    @cached_property
    def on_leg(self) -> npt.NDArray[np.bool_]:
        """Whether a point belongs to a leg."""
        return np.asarray((self.y < self.marks.hip_y - 0.06) & (self.group == SKIN_GROUP))

    @cached_property
    def along(self) -> Floats32:
        """Position along trunk, arm or leg: up, on arms outwards."""
        return np.where(self.on_arm, self.side, self.y)

    @cached_property
    def turn(self) -> Floats32:
        """Angle around trunk, arm or leg in [-1/2, 1/2) turns, 0 in front (arms: above)."""
        marks = self.marks
        first = np.where(self.on_arm, self.z - np.float32(marks.shoulder_z), self.x)
        first = np.where(self.on_leg, self.side - np.float32(marks.thigh_x), first)
        second = np.where(self.on_arm, self.y - np.float32(marks.shoulder_y), self.z + np.float32(0.015))
        return np.asarray(np.arctan2(first, second) * np.float32(0.5 / np.pi), np.float32)

    @cached_property
    def around(self) -> Floats32:
        """The same in metres, for a limb of middling girth."""
        girth = np.where(self.on_arm, np.float32(0.314), np.where(self.on_leg, np.float32(0.534), np.float32(0.942)))
        return np.asarray(self.turn * girth, np.float32)

    @cached_property
    def bends(self) -> Floats32:
        """0 to 1, how near a place is where cloth is crushed: elbow, armpit, waist, crotch, knee, ankle."""
        m, y, side = self.marks, self.y, self.side

        def near(value: Floats32, at: float, width: float) -> Floats32:
            return np.asarray(np.exp(-np.square((value - np.float32(at)) / np.float32(width))), np.float32)

        arm = near(side, m.elbow_x, 0.09) + near(side, m.wrist_x - 0.03, 0.06) + near(side, m.shoulder_x + 0.02, 0.06)
        leg = near(y, m.knee_y, 0.1) + near(y, m.ankle_y + 0.05, 0.07)
        crotch = near(np.hypot(side - np.float32(0.03), y - np.float32(m.hip_y - 0.05)), 0.0, 0.09)
        trunk = 0.8 * near(y, m.waist_y - 0.03, 0.08) + near(
            np.hypot(side - np.float32(0.16), y - np.float32(m.shoulder_y - 0.08)), 0.0, 0.08
        )
        return np.minimum(
            np.where(self.on_arm, arm, np.where(y < m.hip_y + 0.02, leg + crotch, trunk)), np.float32(1.0)
        )


_DERIVED = ("side", "on_arm", "on_leg", "along", "turn", "around", "bends")


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """The texture of one body.

    Attributes:
        points: of the N texels that some face shows.
        texels: (N,) their flat indices in the texture; row 0 is v = 0.
        gutter: flat indices of the texels just outside, and of those that they copy.
    """

    points: Points
    texels: Ints
    gutter: tuple[Ints, Ints]


def body_points(body: BodyModel, marks: Landmarks) -> Points:
    """The vertices of the T-pose."""
    group_X = np.zeros(len(body.template_X3), dtype=np.uint8)
    for group in range(int(body.face_group_F.max()) + 1):
        group_X[np.unique(body.faces_F3[body.face_group_F == group])] = group
    x, y, z = np.ascontiguousarray(body.template_X3.T, dtype=np.float32)
    return Points(x=x, y=y, z=z, group=group_X, hollow=_hollows(body), marks=marks)


def behind_eyes(body: BodyModel) -> npt.NDArray[np.bool_]:
    """Which faces (F,) nobody ever sees: the backs of eyes, and the sockets that they lie in."""
    places_F3 = body.template_X3[body.faces_F3].mean(axis=1)
    first, second, third = (body.template_X3[body.faces_F3[:, corner]] for corner in range(3))
    across_F3 = np.cross(second - first, third - first)
    hidden = np.zeros(len(places_F3), dtype=bool)
    for group in (LEFT_EYE, RIGHT_EYE):
        of_eye = body.face_group_F == group
        away_F3 = places_F3 - body.template_X3[np.unique(body.faces_F3[of_eye])].mean(axis=0)
        away_m = np.linalg.norm(away_F3, axis=1)
        inwards = -(across_F3 * away_F3).sum(axis=1) > 0.3 * np.linalg.norm(across_F3, axis=1) * away_m
        socket = (body.face_group_F == SKIN_GROUP) & inwards & (away_m < _SOCKET_M)
        hidden |= (of_eye | socket) & (away_F3[:, 2] < _EYE_SHOWS_M)
    return hidden


def build_canvas(body: BodyModel, vertices: Points) -> Canvas:
    """Rasterise the T-pose into texture space."""
    corners_F32 = body.uvs_U2[body.face_uvs_F3].astype(np.float64) * TEXTURE_PX - 0.5
    low = np.floor(corners_F32.min(axis=1)).astype(np.int64)
    extent = np.ceil(corners_F32.max(axis=1)).astype(np.int64) - low + 1
    face_of = np.full(TEXTURE_PX * TEXTURE_PX, -1, dtype=np.int64)
    weights = np.zeros((TEXTURE_PX * TEXTURE_PX, 3))
    bucket_F = np.ceil(np.log2(extent.max(axis=1))).astype(np.int64)
    for bucket in np.unique(bucket_F):
        faces = np.flatnonzero(bucket_F == bucket)
        side = np.arange(2**bucket)
        for chunk in np.array_split(faces, max(1, len(faces) * len(side) ** 2 // 2_000_000)):
            at = low[chunk, None, None] + np.stack(np.meshgrid(side, side), axis=-1)[None]
            bary = _barycentric(corners_F32[chunk], at.astype(np.float64))
            hit = (bary >= -1e-6).all(axis=-1) & (at >= 0).all(axis=-1) & (at < TEXTURE_PX).all(axis=-1)
            flat = (at[..., 1] * TEXTURE_PX + at[..., 0])[hit]
            face_of[flat] = np.broadcast_to(chunk[:, None, None], hit.shape)[hit]
            weights[flat] = bary[hit]
    covered = np.flatnonzero(face_of >= 0)
    corners = body.faces_F3[face_of[covered]]
    x, y, z, hollow = (
        np.asarray((weights[covered] * column[corners]).sum(axis=1), np.float32)
        for column in (vertices.x, vertices.y, vertices.z, vertices.hollow)
    )
    group = body.face_group_F[face_of[covered]].astype(np.uint8)
    points = Points(x=x, y=y, z=z, group=group, hollow=hollow, marks=vertices.marks)
    empty = (face_of < 0).reshape(TEXTURE_PX, TEXTURE_PX)
    distance, label = cv2.distanceTransformWithLabels(
        empty.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    owner = np.zeros(int(label.max()) + 1, dtype=np.int64)
    owner[label.ravel()[covered]] = covered
    gutter = np.flatnonzero(empty.ravel() & (distance.ravel() < _GUTTER_PX))
    return Canvas(points=points, texels=covered, gutter=(gutter, owner[label.ravel()[gutter]]))


def neighbour_means(faces_F3: Ints, num_vertices: int) -> sp.csr_matrix:
    """(X, X) matrix that takes values at vertices to the means over their neighbours."""
    edges = np.concatenate([faces_F3[:, [0, 1]], faces_F3[:, [1, 2]], faces_F3[:, [2, 0]]])
    graph = sp.coo_matrix(
        (np.ones(2 * len(edges)), (edges.ravel(), edges[:, ::-1].ravel())), shape=(num_vertices, num_vertices)
    ).tocsr()
    graph.data[:] = 1.0
    return (sp.diags(1.0 / np.maximum(np.asarray(graph.sum(axis=1)).ravel(), 1.0)) @ graph).tocsr()


def vertex_normals(verts_X3: npt.NDArray[np.floating], faces_F3: Ints) -> Floats:
    """Area-weighted unit normals (X, 3); a vertex without faces gets zeros."""
    return NormalMaker(faces_F3, len(verts_X3)).normals(np.asarray(verts_X3, np.float64))


class NormalMaker:
    """Area-weighted normals of one set of faces, quickly and often.

    Args:
        faces_F3: vertex indices.
        num_vertices: of the whole mesh.
    """

    def __init__(self, faces_F3: Ints, num_vertices: int) -> None:
        self._corners = tuple(np.ascontiguousarray(faces_F3[:, i]) for i in range(3))
        num = len(faces_F3)
        self._faces_of = sp.csr_matrix(
            (np.ones(3 * num), (faces_F3.ravel(), np.repeat(np.arange(num), 3))), shape=(num_vertices, num)
        )

    def normals(self, verts_X3: Floats) -> Floats:
        """Unit normals (X, 3); a vertex without faces gets zeros."""
        a, b, c = (verts_X3.take(corner, axis=0) for corner in self._corners)
        b -= a
        c -= a
        cross = np.empty_like(a)
        for axis, (i, j) in enumerate(((1, 2), (2, 0), (0, 1))):
            np.multiply(b[:, i], c[:, j], out=cross[:, axis])
            cross[:, axis] -= b[:, j] * c[:, i]
        total = self._faces_of @ cross
        length = np.sqrt(np.einsum("xc,xc->x", total, total))
        return np.asarray(total / np.maximum(length, 1e-12)[:, None])


def _hollows(body: BodyModel) -> Floats32:
    """Metres that a smoothed surface lies outside of the surface, at two scales."""
    verts = body.template_X3
    mean = neighbour_means(body.faces_F3, len(verts))
    normals = vertex_normals(verts, body.faces_F3)
    total = np.zeros(len(verts))
    smooth = verts
    for step in range(1, 49):
        smooth = smooth + 0.7 * (mean @ smooth - smooth)
        if step in (4, 48):
            total += (1.0 if step == 4 else 0.6) * np.clip(((smooth - verts) * normals).sum(axis=1), -0.01, 0.01)
    for _ in range(2):
        total = total + 0.5 * (mean @ total - total)
    return np.asarray(total, np.float32)


def _barycentric(corners_F32: Floats, at_FHW2: Floats) -> Floats:
    a, b, c = (corners_F32[:, None, None, i] for i in range(3))
    cross = (b - a)[..., 0] * (c - a)[..., 1] - (b - a)[..., 1] * (c - a)[..., 0]
    cross = np.where(np.abs(cross) < 1e-12, 1e-12, cross)
    from_a = at_FHW2 - a
    second = (from_a[..., 0] * (c - a)[..., 1] - from_a[..., 1] * (c - a)[..., 0]) / cross
    third = ((b - a)[..., 0] * from_a[..., 1] - (b - a)[..., 1] * from_a[..., 0]) / cross
    return np.stack([1.0 - second - third, second, third], axis=-1)
