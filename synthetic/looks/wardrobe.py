"""Draws a look on a body: one texture with part ids, and how far each vertex is pushed out by clothes and hair.

Clothes are not separate meshes that could poke through each other: the skin under a garment is smoothed and pushed out along
its normals, and the texture is painted by the position of each texel on the T-pose, so hems are as fine as the texture. What
keeps its own form (shoes, the brim of a cap, a bun) moves vertices to where they lie on the T-pose, and turns with head or foot.

Shape letters: X vertices, F faces, N points, S texture side, M vertices that are moved, R rigid pieces of the body.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from manifests.errors import SyntheticError
from manifests.seeds import rng_for
from synthetic.looks.canvas import (
    LEFT_EYE,
    LOCKS_GROUP,
    RIGHT_EYE,
    SKIN_GROUP,
    SKIRT_GROUP,
    TEXTURE_PX,
    Landmarks,
    NormalMaker,
    behind_eyes,
    body_points,
    build_canvas,
    neighbour_means,
    vertex_normals,
)
from synthetic.looks.garments import (
    COLLARED,
    bottom_inside,
    mask_inside,
    opening_inside,
    scarf_inside,
    shoe_inside,
    shoe_shell,
    top_edges,
    top_inside,
)
from synthetic.looks.look import Look
from synthetic.looks.painter import PARTS, Painter, paint_look
from synthetic.looks.skins import (
    HATS,
    beard_inside,
    hair_inside,
    near,
    ramp,
)
from synthetic.models.body import BodyModel
from synthetic.patterns import Floats32, lookup, noise

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_SMOOTHING_STEPS = 8
_GROUP_NAMES = (("left", LEFT_EYE), ("right", RIGHT_EYE), ("skirt", SKIRT_GROUP), ("locks", LOCKS_GROUP))
_RIGID_JOINTS = (15, 7, 8, 10, 11)  # head, feet, toes
_LEAST_M = 0.003  # cloth lies nowhere closer to the skin, thighs apart
_THICK_M = {"sweater": 0.004, "hoodie": 0.007, "jacket": 0.009, "blazer": 0.006}
_HAIR_M = {
    "bald": 0.002, "shaved": 0.002, "short": 0.013, "parted": 0.019, "curly": 0.026, "afro": 0.055, "bun": 0.009, "tail": 0.009,
    "bob": 0.019, "long": 0.015, "cap": 0.013, "beanie": 0.017, "headscarf": 0.012,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Outfit:
    """A look, drawn for one body.

    Attributes:
        texture_SS4: (S, S, 4) uint8, RGB and the part id; row 0 is texture coordinate v = 0.
        push_X: (X,) metres that each vertex is pushed out along its normal.
        smooth_X: (X,) in [0, 1], how much the body's detail is smoothed away.
        shift_X3: (X, 3) metres on the T-pose that a vertex is moved with the head or foot it belongs to.
        faces_F3: (F, 3) vertex indices of the faces that this look shows.
        face_ids_F: (F,) which of the body's faces they are.
        corners_K2: (K, 2) different pairs of (vertex, texture coordinate), which is what a GPU calls a vertex.
        triangles_F3: (F, 3) the same faces, as indices into `corners_K2`.
        fit: puts it on posed vertices.
    """

    texture_SS4: npt.NDArray[np.uint8]
    push_X: Floats
    smooth_X: Floats
    shift_X3: Floats
    faces_F3: Ints
    face_ids_F: Ints
    corners_K2: Ints
    triangles_F3: Ints
    fit: "Fit"


class Fit:
    """Puts clothes on posed vertices: what can be worked out once for all poses is.

    Args:
        mean_XX: takes values at vertices to the means over their neighbours.
        push_X: as in `Outfit`.
        smooth_X: as in `Outfit`.
        shift_X3: as in `Outfit`.
        pieces: the rigid pieces of the body.
        faces_F3: the faces that are shown.
    """

    def __init__(
        self,
        mean_XX: sp.csr_matrix,
        *,
        push_X: Floats,
        smooth_X: Floats,
        shift_X3: Floats,
        pieces: Sequence["Piece"],
        faces_F3: Ints,
    ) -> None:
        num = len(push_X)
        self._normals = NormalMaker(faces_F3, num)
        shown = np.zeros(num, dtype=bool)
        shown[faces_F3] = True
        self._pushed = np.flatnonzero(shown & (push_X > 0))
        self._push = push_X[self._pushed, None]
        touched = np.zeros(num, dtype=bool)
        touched[self._pushed] = True
        self._pushed_normals = NormalMaker(faces_F3[touched[faces_F3].any(axis=1)], num)
        # Smoothing knows the M vertices that it moves, which come first, and their neighbours.
        moved = np.flatnonzero(shown & (smooth_X > 0.01))
        rows = mean_XX[moved]
        self._read = np.concatenate([moved, np.setdiff1d(rows.indices, moved)])
        place = np.zeros(num, dtype=np.int64)
        place[self._read] = np.arange(len(self._read))
        self._num_moved = len(moved)
        means = sp.csr_matrix((rows.data, place[rows.indices], rows.indptr), (len(moved), len(self._read)))
        self._step = (sp.diags(0.7 * smooth_X[moved]) @ (means - sp.eye(*means.shape))).tocsr()
        self._shifted = np.flatnonzero(shown & (np.abs(shift_X3).max(axis=1) > 1e-5))
        self._pieces = pieces
        share_RM = np.array([piece.weight_X[self._shifted] for piece in pieces]).reshape(
            len(pieces), len(self._shifted)
        )
        if len(pieces):
            share_RM[0, share_RM.sum(axis=0) < 0.01] = 1.0  # hair on the shoulders follows the head
            share_RM /= share_RM.sum(axis=0)
        self._shift_RM3 = share_RM[..., None] * shift_X3[self._shifted]

    def clothe(self, verts_X3: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Dressed vertices (X, 3) in metres and their unit normals (X, 3)."""
        naked = np.asarray(verts_X3, dtype=np.float64)
        local = naked[self._read]
        for _ in range(_SMOOTHING_STEPS):
            local[: self._num_moved] += self._step @ local
        verts = naked.copy()
        verts[self._read] = local
        verts[self._pushed] += self._pushed_normals.normals(verts)[self._pushed] * self._push
        if len(self._shifted):
            turns_R33 = np.stack([piece.turn(naked) for piece in self._pieces])
            verts[self._shifted] += (self._shift_RM3 @ turns_R33.transpose(0, 2, 1)).sum(axis=0)
        return verts, self._normals.normals(verts)


class Piece:
    """A part of the body that keeps its form.

    Args:
        body: the body.
        joint: the joint that it follows.
    """

    def __init__(self, body: BodyModel, joint: int) -> None:
        follows = body.skin_vertices[body.weights_XJ[body.skin_vertices, joint] > 0.9]
        self._at = follows[:: max(1, len(follows) // 48)]
        self._rest_N3 = body.template_X3[self._at] - body.template_X3[self._at].mean(axis=0)
        self._size = float(np.square(self._rest_N3).sum())
        self.weight_X = body.weights_XJ[:, joint].astype(np.float64)

    def turn(self, verts_X3: Floats) -> Floats:
        """Rotation and scale (3, 3) that best take it from the T-pose to a pose (Kabsch)."""
        posed = verts_X3[self._at]
        posed -= posed.mean(axis=0)
        left, _, right = np.linalg.svd(posed.T @ self._rest_N3)
        left[:, 2] *= np.sign(np.linalg.det(left @ right))
        return np.asarray(np.sqrt(np.square(posed).sum() / self._size) * (left @ right))


class Wardrobe:
    """What looks need to know of one body: landmarks, the place of each texel, and neighbours of each vertex.

    Attributes:
        parts: names of the part ids in a texture's fourth channel.
        uvs_U2: texture coordinates, origin at the lower left.
        face_uvs_F3: indices into them for each face of the body.

    Raises:
        SyntheticError: the body has no texture coordinates, so nothing can be painted on it.
    """

    parts = PARTS

    def __init__(self, body: BodyModel) -> None:
        if not len(body.uvs_U2) or int(body.face_group_F.max()) < LOCKS_GROUP:
            raise SyntheticError(
                "this body cannot be dressed: it has no texture coordinates, eyes or hair (a converted SMPL has none)",
                where="body",
                hint="render with the free body (`python -m synthetic body`), or give SURREAL's textures and SMPL's "
                "smpl_uv.obj; nobody is rendered undressed",
            )
        self._body = body
        self.uvs_U2, self.face_uvs_F3 = body.uvs_U2, body.face_uvs_F3
        self._marks = Landmarks.of(body)
        self._vertices = body_points(body, self._marks)
        self._canvas = build_canvas(body, self._vertices)
        self._mean_XX = neighbour_means(body.faces_F3, len(body.template_X3))
        self._pieces = [Piece(body, joint) for joint in _RIGID_JOINTS]
        points, marks = self._canvas.points, self._marks
        skin = points.group == SKIN_GROUP
        regions = {
            "head": skin & (points.y > marks.neck_y - 0.2) & (points.side < marks.shoulder_x + 0.02),
            "neck": skin & (points.y > marks.neck_y - 0.13) & (points.y < marks.neck_y + 0.11) & (points.side < marks.shoulder_x),
            "upper": skin & (points.y > marks.waist_y - 0.26) & (points.y < marks.neck_y + 0.08) & (points.side < marks.wrist_x + 0.02),
            "lower": skin & (points.y < marks.waist_y + 0.1),
            "feet": skin & (points.y < marks.knee_y),
            "skin": skin,
            **{name: points.group == group for name, group in _GROUP_NAMES},
        }  # fmt: skip
        self._regions = {
            name: (where, points.take(where)) for name, where in ((n, np.flatnonzero(w)) for n, w in regions.items())
        }
        for _, region in self._regions.values():
            _ = region.around, region.bends  # worked out once, not in each look
        self._never_seen = behind_eyes(body)
        self._skirt_rows = self._rows_of_skirt()
        self._lock_of_F, self._locks_behind, self._locks_in_tail = self._sort_locks()

    def dress(self, look: Look) -> Outfit:
        """Draw a look; never an undressed body: top, bottom and shoes always cover what they are for."""
        body = self._body
        push_X, smooth_X, shift_X3 = self._layers(look)
        shown = self._shown(look)
        faces_F3 = body.faces_F3[shown]
        # Pairs as one number: sorting those is many times faster than sorting rows.
        keys, inverse = np.unique(faces_F3 * len(body.uvs_U2) + body.face_uvs_F3[shown], return_inverse=True)
        return Outfit(
            texture_SS4=paint_look(Painter(self._canvas, self._regions), look),
            push_X=push_X,
            smooth_X=smooth_X,
            shift_X3=shift_X3,
            faces_F3=faces_F3,
            face_ids_F=shown,
            corners_K2=np.stack(np.divmod(keys, len(body.uvs_U2)), axis=1),
            triangles_F3=inverse.reshape(-1, 3),
            fit=Fit(
                self._mean_XX,
                push_X=push_X,
                smooth_X=smooth_X,
                shift_X3=shift_X3,
                pieces=self._pieces,
                faces_F3=faces_F3,
            ),
        )

    def clothe(self, verts_X3: npt.ArrayLike, outfit: Outfit) -> tuple[Floats, Floats]:
        """Turn a posed naked body into a dressed one.

        Args:
            verts_X3: (X, 3) posed vertices, metres.
            outfit: what to wear.

        Returns:
            vertices (X, 3) in metres, unit normals (X, 3).
        """
        return outfit.fit.clothe(verts_X3)

    # ----------------------------------------------------------------------------------------------------------- shown

    def _shown(self, look: Look) -> Ints:
        """Indices of the faces that a look shows."""
        body = self._body
        shown = (body.face_group_F < SKIRT_GROUP) & ~self._never_seen
        if look.skirt != "none":
            hem_y = self._marks.hip_y - (0.26 if look.skirt != "coat" else 0.34) - 0.3 * look.skirt_end
            skirt, row_of_face, y_of_row = self._skirt_rows
            shown[skirt] = y_of_row[row_of_face] > hem_y
        if look.hair in ("long", "bob", "tail"):
            lock = np.isin(self._lock_of_F, self._locks_in_tail if look.hair == "tail" else self._locks_behind)
            if look.hair == "bob":
                lock &= body.template_X3[body.faces_F3, 1].mean(axis=1) > self._marks.neck_y - 0.03
            shown |= lock
        return np.flatnonzero(shown)

    def _rows_of_skirt(self) -> tuple[Ints, Ints, Floats]:
        """Faces of the skirt, the row of each, counted from the waist, and the mean y of the rows' lower ends.

        A skirt that is cut between rows has an even hem.
        """
        body = self._body
        skirt = np.flatnonzero(body.face_group_F == SKIRT_GROUP)
        edges = np.sort(np.concatenate([body.faces_F3[skirt][:, pair] for pair in ([0, 1], [1, 2], [2, 0])]), axis=1)
        sides, times = np.unique(edges, axis=0, return_counts=True)
        rim = np.unique(sides[times == 1])
        waist = rim[body.template_X3[rim, 1] > self._marks.hip_y]
        num = len(body.template_X3)
        graph = sp.coo_matrix((np.ones(len(sides)), sides.T), (num, num))
        steps_X = sp.csgraph.dijkstra(graph, directed=False, indices=waist, unweighted=True, min_only=True)
        row_X = np.where(np.isfinite(steps_X), steps_X, 0).astype(np.int64)
        own = np.unique(body.faces_F3[skirt])
        y_of_row = np.bincount(row_X[own], body.template_X3[own, 1]) / np.bincount(row_X[own])
        return skirt, row_X[body.faces_F3[skirt]].max(axis=1), y_of_row

    def _sort_locks(self) -> tuple[Ints, Ints, Ints]:
        """The lock of long hair each face belongs to, the locks that hang behind the shoulders, and those of a tail."""
        body = self._body
        faces_F3 = body.faces_F3[body.face_group_F == LOCKS_GROUP]
        num = len(body.template_X3)
        graph = sp.coo_matrix(
            (np.ones(3 * len(faces_F3)), (faces_F3.ravel(), np.roll(faces_F3, 1, axis=1).ravel())), (num, num)
        )
        lock_X = sp.csgraph.connected_components(graph, directed=False)[1]
        behind, tail = [], []
        for lock in np.unique(lock_X[faces_F3]):
            points = body.template_X3[lock_X == lock]
            if points[:, 2].min() < -0.05:
                behind.append(lock)
                if abs(points[:, 0].mean()) < 0.07:
                    tail.append(lock)
        lock_F = np.where(body.face_group_F == LOCKS_GROUP, lock_X[body.faces_F3[:, 0]], -1)
        return lock_F, np.array(behind), np.array(tail)

    # -------------------------------------------------------------------------------------------------------- geometry

    def _layers(self, look: Look) -> tuple[Floats, Floats, Floats]:
        points, marks = self._vertices, self._marks
        x, y, z, side = points.x, points.y, points.z, points.side
        rng = rng_for(look.seed, "layers")
        folds = lookup(
            noise(rng, (5, 11, 23)), points.around / np.float32(0.5), points.along / np.float32(0.7)
        ) - np.float32(0.5)
        skin = points.group == SKIN_GROUP
        neckline = top_edges(points, look)[0]
        top, bottom, shoe, hair = (
            ramp(f(points, look), width) * skin
            for f, width in ((top_inside, 0.012), (bottom_inside, 0.012), (shoe_inside, 0.01), (hair_inside, 0.014))
        )
        thick = _THICK_M.get(look.top_style, 0.0)
        drop = np.clip((marks.shoulder_y - y) / 0.4, 0.0, 1.0)
        sleeve = np.clip((side - marks.shoulder_x) / 0.3, 0.0, 1.0)
        loose = look.top.loose_m * np.where(points.on_arm, 0.25 + 0.5 * sleeve, 0.4 + 0.6 * drop)
        if look.tucked or look.skirt == "dress":
            loose = loose * np.where(points.on_arm, 1.0, np.clip((y - marks.waist_y) / 0.25, 0.1, 1.0))
        top_push = np.maximum(0.006 + thick + loose + 0.016 * folds, _LEAST_M)
        if look.top_style in COLLARED or look.top_style in ("jacket", "hoodie"):
            top_push = top_push + 0.009 * ramp(0.045 - neckline, 0.02)
        if look.top_style == "hoodie":
            hood = near(np.square(side / np.float32(1.3)) + np.square(y - np.float32(marks.neck_y - 0.035)), 0.075)
            top_push = top_push + 0.042 * hood * ramp(-z + np.float32(0.01), 0.04)
        opening = ramp(opening_inside(points, look) + np.float32(0.008), 0.02)
        top_push = top_push * (1.0 - opening) + opening * (0.004 + 0.25 * look.top.loose_m)
        leg = np.clip((marks.hip_y - y) / (marks.hip_y - marks.ankle_y), 0.0, 1.0)
        inner = np.clip(side / 0.06, 0.0, 1.0)  # thighs must not push through each other
        bottom_push = 0.005 + look.bottom.loose_m * (0.15 + 0.85 * leg) + 0.014 * folds * (0.4 + leg)
        bottom_push = np.maximum(bottom_push, _LEAST_M) * (0.4 + 0.6 * inner)
        if look.tucked:
            bottom_push = bottom_push + 0.004 * (y > marks.waist_y - 0.03)
        strands = lookup(noise(rng, (12, 25, 51)), x / np.float32(0.3), (y + z) / np.float32(0.3)) - np.float32(0.5)
        rough = {"curly": 1.0, "afro": 0.5}.get(look.hair, 0.0 if look.hair in HATS else 0.55)
        hair_push = _HAIR_M[look.hair] * (0.8 + rough * strands)
        if look.hair == "parted":
            hair_push = hair_push * (1.0 - 0.45 * near(np.square(x - np.float32(0.025)), 0.012))
        *_, front = shoe_shell(points, look)
        push = np.maximum(np.maximum(top * top_push, bottom * bottom_push), hair * hair_push)
        push = np.maximum(push, shoe * 0.01 * (1.0 - front))
        smooth = np.maximum(
            np.maximum(top, bottom), np.maximum(shoe * (1.0 - front), hair * (look.hair not in ("shaved", "bald")))
        )
        for inside, metres, worn in (
            (scarf_inside(points), 0.024, "scarf" in look.extras),
            (mask_inside(points), 0.009, "mask" in look.extras),
        ):
            if worn:
                cover = ramp(inside, 0.012) * skin
                push, smooth = np.maximum(push, cover * metres), np.maximum(smooth, cover)
        if look.beard == "full" and "mask" not in look.extras:
            push = np.maximum(push, 0.006 * ramp(beard_inside(points, look), 0.02) * (y > marks.neck_y) * skin)
        if look.skirt != "none":
            hip = np.clip((marks.waist_y + 0.02 - y) / 0.12, 0.0, 1.0)
            on_skirt = points.group == SKIRT_GROUP
            full = 0.03 if look.skirt != "coat" else 0.05
            push = np.where(on_skirt, 0.006 + full * hip + 0.02 * folds, push)
            smooth = np.where(on_skirt, 0.8, smooth)
        push = np.maximum(push, 0.0).astype(np.float64)
        for _ in range(2):  # steps at hems and collars are softer than the mesh is coarse
            push += 0.4 * (smooth > 0) * (self._mean_XX @ push - push)
        root = np.clip(
            (y - np.float32(marks.eye[1] + 0.04)) / 0.05, 0.0, 1.0
        )  # the locks begin inside the hair of the scalp
        push = np.where(points.group == LOCKS_GROUP, 0.006 * (1.0 - root), push)
        return push, smooth.astype(np.float64), self._shifts(look, shoe)

    def _shifts(self, look: Look, shoe: Floats32) -> Floats:
        """What keeps its own form, as moves on the T-pose."""
        points, marks = self._vertices, self._marks
        x, y, z, skin = points.x, points.y - np.float32(marks.eye[1]), points.z, points.group == SKIN_GROUP
        shift = np.zeros((len(points), 3))
        feet = np.flatnonzero(shoe > 0)
        foot = points.take(feet)
        side, over, ahead, _ = shoe_shell(foot, look)
        shift[feet] = (
            np.stack([np.sign(foot.x) * (side - foot.side), over - foot.y, ahead - foot.z], axis=1) * shoe[feet, None]
        )
        if look.hair == "cap":
            brim = near(np.square(y - np.float32(0.051)), 0.0075) * ramp(z - np.float32(0.07), 0.03) * skin
            shift += np.array((0.0, -0.013, 0.06)) * (brim * np.clip(1.0 - np.square(x / 0.075), 0.0, 1.0))[:, None]
        elif look.hair == "bun":
            high = 0.02 + 0.075 * (look.seed % 8) / 7.0
            away = (
                np.square(x)
                + np.square(y - np.float32(high))
                + np.square(z - np.float32(-0.05 + 0.5 * max(high - 0.06, 0.0)))
            )
            shift += (
                np.array((0.0, 0.35 + 4.0 * max(high - 0.06, 0.0), -0.9))
                * (0.055 * ramp(near(away, 0.036), 0.9) * skin)[:, None]
            )
        elif look.hair == "beanie":
            shift[:, 1] += 0.02 * ramp(y - np.float32(0.06), 0.06) * skin
        if look.hair in ("long", "bob", "tail"):
            locks = np.flatnonzero(points.group == LOCKS_GROUP)
            places = self._body.template_X3
            wider = 0.9 * (places[locks] - self._mean_XX[locks] @ places)  # so that no gaps stay between locks
            wider[:, 1] = 0.0
            cloth = 0.004 + 0.6 * look.top.loose_m + _THICK_M.get(look.top_style, 0.0)
            cloth += 0.04 * (look.top_style == "hoodie") + 0.02 * ("scarf" in look.extras)
            wider[:, 2] -= cloth * np.clip((marks.neck_y + 0.05 - places[locks, 1]) / 0.06, 0.0, 1.0)
            wider[:, 0] -= (0.55 if look.hair == "tail" else 0.0) * places[locks, 0]
            shift[locks] = wider * np.clip((marks.eye[1] + 0.08 - places[locks, 1]) / 0.05, 0.0, 1.0)[:, None]
        return shift


__all__ = ["PARTS", "TEXTURE_PX", "Fit", "Outfit", "Wardrobe", "vertex_normals"]
