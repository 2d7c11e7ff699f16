"""Draws a look on a body: one texture with part ids, and how far each vertex is pushed out by clothes and hair.

Clothes are not separate meshes that could poke through each other: the skin under a garment is smoothed and pushed out along
its normals, and the texture is painted by the position of each texel on the T-pose, so hems are as fine as the texture.

Shape letters: X vertices, F faces, N points, S texture side, C colours.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from manifests.errors import SyntheticError
from manifests.seeds import rng_for
from synthetic.body import BodyModel
from synthetic.looks import Look
from synthetic.patterns import Floats32, noise, sample_tile, tile

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

TEXTURE_PX = 768
PARTS = ("background", "skin", "hair", "top", "bottom", "shoes", "eyes")
SKIN, HAIR, TOP, BOTTOM, SHOES, EYES = range(1, len(PARTS))
_SMOOTHING_STEPS = 8
_SHOE_SMOOTHING_STEPS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Outfit:
    """A look, drawn for one body.

    Attributes:
        texture_SS4: (S, S, 4) uint8, RGB and the part id; row 0 is texture coordinate v = 0.
        push_X: (X,) metres that each vertex is pushed out along its normal.
        smooth_X: (X,) in [0, 1], how much the body's detail is smoothed away.
        shoe_X: (X,) in [0, 1], how far a vertex is inside a shoe.
        faces_F3: (F, 3) vertex indices of the faces that this look shows.
        face_ids_F: (F,) which of the body's faces they are.
        corners_K2: (K, 2) different pairs of (vertex, texture coordinate), which is what a GPU calls a vertex.
        triangles_F3: (F, 3) the same faces, as indices into `corners_K2`.
    """

    texture_SS4: npt.NDArray[np.uint8]
    push_X: Floats
    smooth_X: Floats
    shoe_X: Floats
    faces_F3: Ints
    face_ids_F: Ints
    corners_K2: Ints
    triangles_F3: Ints


class Wardrobe:
    """What looks need to know of one body: landmarks, the place of each texel, and neighbours of each vertex.

    Raises:
        SyntheticError: the body has no texture coordinates, so nothing can be painted on it.
    """

    def __init__(self, body: BodyModel) -> None:
        if not len(body.uvs_U2) or int(body.face_group_F.max()) < 2:
            raise SyntheticError(
                "this body cannot be dressed: it has no texture coordinates, eyes or hair (a converted SMPL has none)",
                where="body",
                hint="render with the free body (`python -m synthetic body`); nobody is rendered undressed",
            )
        self._body = body
        joints = body.joints_J3
        skin = body.template_X3[body.skin_vertices]
        eyes = [body.template_X3[np.unique(body.faces_F3[body.face_group_F == g])] for g in (1, 2)]
        self._eye_centres = [eye.mean(axis=0) for eye in eyes]
        self._eye_y = float(self._eye_centres[0][1])
        self._sole_y = float(skin[:, 1].min())
        head = skin[skin[:, 1] > self._eye_y]
        self._head_z = (float(head[:, 2].min()), float(head[:, 2].max()))
        self._neck_y = float(joints[12, 1])
        self._shoulder, self._wrist = joints[16], joints[20]
        self._hip_y, self._ankle_y = float(joints[1, 1]), float(joints[7, 1])
        self._waist_y = float(joints[3, 1] + 0.02)
        self._thigh_x = float((joints[1, 0] + joints[4, 0]) / 2)
        self._group_X = np.zeros(len(body.template_X3), dtype=np.int64)
        for group in range(int(body.face_group_F.max()) + 1):
            self._group_X[np.unique(body.faces_F3[body.face_group_F == group])] = group
        texel_group, self._texel_points, self._texel_index, self._gutter = _texel_points(body)
        self._texel_group = texel_group
        self._left_out_F = self._below_the_skirt() | self._over_the_face()
        edges = np.concatenate([body.faces_F3[:, [0, 1]], body.faces_F3[:, [1, 2]], body.faces_F3[:, [2, 0]]])
        num = len(body.template_X3)
        graph = sp.coo_matrix(
            (np.ones(2 * len(edges)), (edges.ravel(), edges[:, ::-1].ravel())), shape=(num, num)
        ).tocsr()
        graph.data[:] = 1.0
        self._neighbours = (sp.diags(1.0 / np.maximum(np.asarray(graph.sum(axis=1)).ravel(), 1.0)) @ graph).tocsr()
        self._feet = np.flatnonzero((body.template_X3[:, 1] < self._ankle_y) & (self._group_X == 0))
        self._feet_neighbours = self._neighbours[self._feet]

    def dress(self, look: Look) -> Outfit:
        """Draw a look; never an undressed body: top, bottom and shoes always cover what they are for."""
        body = self._body
        push_X, smooth_X, shoe_X = self._layers(look)
        groups = [0, 1, 2, *([3] if look.skirt else []), *([4] if look.hair == "long" else [])]
        shown = np.isin(body.face_group_F, groups) & ~self._left_out_F
        pairs = np.stack([body.faces_F3[shown].ravel(), body.face_uvs_F3[shown].ravel()], axis=1)
        corners, inverse = np.unique(pairs, axis=0, return_inverse=True)
        return Outfit(
            texture_SS4=self._paint(look),
            push_X=push_X,
            smooth_X=smooth_X,
            shoe_X=shoe_X,
            faces_F3=body.faces_F3[shown],
            face_ids_F=np.flatnonzero(shown),
            corners_K2=corners,
            triangles_F3=inverse.reshape(-1, 3),
        )

    def _below_the_skirt(self) -> npt.NDArray[np.bool_]:
        """Faces of the skirt below the knee; cut along rows of v, whole quads, so that the hem is even."""
        body = self._body
        skirt = np.flatnonzero(body.face_group_F == 3)
        v_F3 = body.uvs_U2[body.face_uvs_F3[skirt], 1].astype(np.float64)
        y_F3 = body.template_X3[body.faces_F3[skirt], 1]
        hem_v = float(np.interp(self._hip_y - 0.36, np.sort(y_F3.ravel()), np.sort(v_F3.ravel())))
        v_of_quad = v_F3.mean(axis=1).reshape(2, -1).mean(axis=0)  # first all upper halves of the quads, then all lower
        below = np.zeros(len(body.faces_F3), dtype=bool)
        below[skirt] = np.tile(v_of_quad < hem_v, 2)
        return below

    def _over_the_face(self) -> npt.NDArray[np.bool_]:
        """Faces of those locks of long hair that would hang before the face: the short ones, and the foremost."""
        body = self._body
        faces_F3 = body.faces_F3[body.face_group_F == 4]
        num = len(body.template_X3)
        graph = sp.coo_matrix(
            (np.ones(3 * len(faces_F3)), (faces_F3.ravel(), np.roll(faces_F3, 1, axis=1).ravel())), (num, num)
        )
        lock_X = sp.csgraph.connected_components(graph, directed=False)[1]
        left_out = np.zeros(len(body.faces_F3), dtype=bool)
        for lock in np.unique(lock_X[faces_F3]):
            points = body.template_X3[lock_X == lock]
            if points[:, 1].min() > self._neck_y - 0.1 or points[:, 2].min() > 0.03:
                left_out |= lock_X[body.faces_F3[:, 0]] == lock
        return left_out

    def clothe(self, verts_X3: npt.ArrayLike, outfit: Outfit) -> tuple[Floats, Floats]:
        """Turn a posed naked body into a dressed one.

        Args:
            verts_X3: (X, 3) posed vertices, metres.
            outfit: what to wear.

        Returns:
            vertices (X, 3) in metres, unit normals (X, 3).
        """
        verts = np.asarray(verts_X3, dtype=np.float64)
        amount = outfit.smooth_X[:, None]
        for _ in range(_SMOOTHING_STEPS):
            verts = verts + amount * 0.7 * (self._neighbours @ verts - verts)
        for _ in range(_SHOE_SMOOTHING_STEPS):  # toes melt together
            verts[self._feet] += (
                0.8 * outfit.shoe_X[self._feet, None] * (self._feet_neighbours @ verts - verts[self._feet])
            )
        verts = verts + vertex_normals(verts, self._body.faces_F3) * outfit.push_X[:, None]
        return verts, vertex_normals(verts, outfit.faces_F3)

    # ------------------------------------------------------------------------------------------------ signed distances
    # Each takes points on the T-pose and answers in metres, positive inside the garment.

    def _in_top(self, points_N3: Floats, look: Look) -> Floats:
        x, y, z = np.abs(points_N3[:, 0]), points_N3[:, 1], points_N3[:, 2]
        rise = {"crew": -0.012, "v": -0.004, "high": 0.035}[look.collar]
        neckline = self._neck_y + rise - 0.35 * np.maximum(z, -0.03) - y
        if look.collar == "v":
            neckline -= np.where(z > 0, np.maximum(0.0, 0.09 - 1.6 * x), 0.0)
        sleeve = self._shoulder[0] + 0.01 + look.top.end * (self._wrist[0] - self._shoulder[0] - 0.01) - x
        hem_y = self._waist_y - 0.06 - 0.14 * look.hem
        return np.asarray(np.minimum(np.minimum(neckline, sleeve), y - hem_y))

    def _in_bottom(self, points_N3: Floats, look: Look) -> Floats:
        y = points_N3[:, 1]
        end_y = self._hip_y + look.bottom.end * (self._ankle_y - 0.01 - self._hip_y)
        return np.minimum(self._waist_y + 0.03 - y, y - end_y)

    def _in_shoe(self, points_N3: Floats, look: Look) -> Floats:
        return (
            self._ankle_y
            - 0.005
            + 0.11 * look.shoe_height
            - points_N3[:, 1]
            + 0.15 * np.minimum(points_N3[:, 2] + 0.03, 0.0)
        )

    def _in_hair(self, points_N3: Floats, look: Look) -> Floats:
        x, y, z = np.abs(points_N3[:, 0]), points_N3[:, 1] - self._eye_y, points_N3[:, 2]
        back, front = self._head_z
        line = -0.105 + (z - back) * ((0.062 + 0.105) / (front - back))
        if look.hair == "cap":
            line = np.full_like(y, 0.035)
        wave = 0.004 * np.sin(90 * x + look.seed % 7) + 0.003 * np.sin(240 * x)
        behind_ears = np.where((z > -0.01) & (y < 0.02), -1.0, 1.0)
        return np.where(behind_ears > 0, y - line + wave, np.minimum(y - line, -0.001) - 0.01)

    # -------------------------------------------------------------------------------------------------------- geometry

    def _layers(self, look: Look) -> tuple[Floats, Floats, Floats]:
        points = self._body.template_X3
        rng = rng_for(look.seed, "layers")
        crease = noise(rng, (5, 11, 23))
        along, around = self._cloth_axes(points)
        folds = sample_tile(crease[..., None], around / 0.5, along / 0.7)[:, 0].astype(np.float64) - 0.5
        skin = self._group_X == 0
        top, bottom, shoe, hair = (
            _ramp(f(points, look), width) * skin
            for f, width in (
                (self._in_top, 0.012),
                (self._in_bottom, 0.012),
                (self._in_shoe, 0.01),
                (self._in_hair, 0.02),
            )
        )
        on_torso = np.abs(points[:, 0]) < self._shoulder[0]
        drop = np.clip((self._shoulder[1] - points[:, 1]) / 0.4, 0.0, 1.0)
        sleeve = np.clip((np.abs(points[:, 0]) - self._shoulder[0]) / 0.3, 0.0, 1.0)
        top_push = 0.007 + look.top.loose_m * np.where(on_torso, 0.4 + 0.6 * drop, 0.25 + 0.5 * sleeve) + 0.016 * folds
        leg = np.clip((self._hip_y - points[:, 1]) / (self._hip_y - self._ankle_y), 0.0, 1.0)
        inner = np.clip(np.abs(points[:, 0]) / 0.06, 0.0, 1.0)  # thighs must not push through each other
        bottom_push = (0.005 + look.bottom.loose_m * (0.15 + 0.85 * leg) + 0.014 * folds * (0.4 + leg)) * (
            0.4 + 0.6 * inner
        )
        strands = sample_tile(
            noise(rng, (12, 25, 51))[..., None], points[:, 0] / 0.3, (points[:, 1] + points[:, 2]) / 0.3
        )[:, 0]
        thick = {"shaved": 0.002, "short": 0.012, "full": 0.03, "long": 0.016, "cap": 0.014}[look.hair]
        hair_push = thick * (0.75 + (0.0 if look.hair == "cap" else 0.6) * (strands.astype(np.float64) - 0.5))
        push = np.maximum(np.maximum(top * top_push, bottom * bottom_push), np.maximum(shoe * 0.011, hair * hair_push))
        if look.skirt:
            hip = np.clip((self._waist_y + 0.02 - points[:, 1]) / 0.12, 0.0, 1.0)
            push = np.where(self._group_X == 3, 0.006 + 0.03 * hip + 0.02 * folds, push)
        push = np.where(self._group_X == 4, 0.006, push)
        smooth = np.maximum(np.maximum(top, bottom), np.maximum(shoe, (look.hair != "shaved") * hair))
        return np.maximum(push, 0.0), smooth, shoe

    def _cloth_axes(self, points_N3: Floats) -> tuple[Floats, Floats]:
        """Position along and around trunk, arms or legs, metres."""
        x, y, z = points_N3.T
        arm = np.abs(x) > self._shoulder[0]
        leg = y < self._hip_y - 0.06
        around_arm = np.arctan2(z - self._shoulder[2], y - self._shoulder[1]) * 0.05
        around_leg = np.arctan2(np.abs(x) - self._thigh_x, z + 0.01) * 0.085
        around_trunk = np.arctan2(x, z + 0.02) * 0.15
        around = np.where(arm, around_arm, np.where(leg, around_leg, around_trunk))
        return np.where(arm, np.abs(x), y), around

    # ----------------------------------------------------------------------------------------------------------- paint

    def _paint(self, look: Look) -> npt.NDArray[np.uint8]:
        points, group = self._texel_points, self._texel_group
        rng = rng_for(look.seed, "paint")
        colour, part = self._skin(points, look, rng), np.full(len(points), SKIN, dtype=np.uint8)
        along, around = self._cloth_axes(points)
        shade = 0.86 + 0.28 * sample_tile(noise(rng, (6, 13, 27))[..., None], around / 0.45, along / 0.8)
        for inside, paint, name in (
            (
                self._in_sock(points, look),
                np.broadcast_to(np.array(look.socks, np.float32), colour.shape) * shade,
                SHOES,
            ),
            (self._in_shoe(points, look), self._shoes(points, look) * shade, SHOES),
            (self._in_bottom(points, look), self._trousers(points, look, along, around) * shade, BOTTOM),
            (self._in_top(points, look), self._shirt(points, look, along, around) * shade, TOP),
            (self._in_hair(points, look), self._hair(points, look, rng), HAIR),
        ):
            where = (inside > 0) & (group == 0)
            colour = np.where(where[:, None], paint, colour)
            part[where] = name
        for eye, centre in zip((1, 2), self._eye_centres, strict=True):
            at = group == eye
            colour[at], part[at] = _eyeball(points[at] - centre, look), EYES
        skirt, long = group == 3, group == 4
        colour[skirt], part[skirt] = (self._trousers(points, look, along, around) * shade)[skirt], BOTTOM
        colour[long], part[long] = self._hair(points, look, rng)[long], HAIR
        flat = np.zeros((TEXTURE_PX * TEXTURE_PX, 4), dtype=np.uint8)
        flat[:, :3] = 128
        flat[:, 3] = SKIN
        flat[self._texel_index, :3] = (np.clip(colour, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
        flat[self._texel_index, 3] = part
        flat[self._gutter[0]] = flat[self._gutter[1]]
        return flat.reshape(TEXTURE_PX, TEXTURE_PX, 4)

    def _in_sock(self, points_N3: Floats, look: Look) -> Floats:
        return self._in_shoe(points_N3, look) + 0.045

    def _skin(self, points: Floats, look: Look, rng: np.random.Generator) -> Floats32:
        blotch = sample_tile(
            noise(rng, (4, 9, 19))[..., None], points[:, 0] / 0.5, (points[:, 1] + 0.6 * points[:, 2]) / 0.5
        )
        colour = np.array(look.skin, np.float32) * (0.94 + 0.12 * blotch)
        x, y, z = np.abs(points[:, 0]), points[:, 1] - self._eye_y, points[:, 2]
        front = z > self._head_z[1] - 0.07
        eye_x = abs(float(self._eye_centres[0][0]))
        brow = front & (np.abs(x - eye_x) < 0.02) & (np.abs(y - 0.021 - 0.1 * (x - eye_x)) < 0.0042)
        mouth = front & (((x / 0.025) ** 2 + ((y + 0.0705) / 0.009) ** 2) < 1.0)
        jaw = (
            _ramp(-0.04 - y, 0.03)
            * (self._eye_y + y > self._neck_y + 0.04)
            * (z > 0.02)
            * (0.75 if look.beard > 0 else 0.0)
        )
        colour = colour + (jaw * look.beard)[:, None] * (np.array(look.hair_colour, np.float32) - colour)
        colour = np.where(mouth[:, None], np.array(look.lips, np.float32), colour)
        return np.asarray(
            np.where(brow[:, None], 0.3 * colour + 0.7 * np.array(look.hair_colour, np.float32), colour), np.float32
        )

    def _hair(self, points: Floats, look: Look, rng: np.random.Generator) -> Floats32:
        if look.hair == "cap":
            peak = (points[:, 2] > self._head_z[1] - 0.03) & (points[:, 1] < self._eye_y + 0.05)
            return np.asarray(np.array(look.cap_colour, np.float32) * np.where(peak, 0.7, 1.0)[:, None], np.float32)
        strands = sample_tile(
            noise(rng, (24, 48, 96))[..., None], points[:, 0] / 0.16, points[:, 1] / 0.9 + points[:, 2] / 0.5
        )
        colour = np.array(look.hair_colour, np.float32) * (0.65 + 0.8 * strands)
        if look.hair == "shaved":
            colour = 0.55 * colour + 0.45 * np.array(look.skin, np.float32)
        return np.asarray(colour, np.float32)

    def _shirt(self, points: Floats, look: Look, along: Floats, around: Floats) -> Floats32:
        pattern = look.top.pattern
        colour = sample_tile(tile(pattern), around / pattern.tile_m, along / pattern.tile_m).copy()
        x, y, z = points[:, 0], points[:, 1], points[:, 2]
        if look.chest_print:
            picture = (np.abs(x) < 0.085) & (np.abs(y - self._neck_y + 0.23) < 0.07) & (z > 0)
            marks = noise(rng_for(look.seed, "print"), (4, 8))
            first = sample_tile(marks[..., None], x / 0.2, y / 0.2) > 0.5
            chosen = np.where(first, np.array(look.collar_colour, np.float32), np.array(pattern.colours[2], np.float32))
            colour = np.where(picture[:, None], chosen, colour)
        if look.placket:
            line = (np.abs(x) < 0.012) & (z > 0)
            button = line & (np.abs(x) < 0.006) & ((y % 0.08) < 0.012)
            colour = np.where(line[:, None], colour * 0.75, colour)
            colour = np.where(button[:, None], np.array(look.collar_colour, np.float32), colour)
        edge = self._in_top(points, look)
        colour = np.where((edge < 0.02)[:, None], 0.5 * colour + 0.5 * np.array(look.collar_colour, np.float32), colour)
        return np.asarray(np.where((np.abs(edge - 0.02) < 0.003)[:, None], colour * 0.7, colour), np.float32)

    def _trousers(self, points: Floats, look: Look, along: Floats, around: Floats) -> Floats32:
        pattern = look.bottom.pattern
        colour = sample_tile(tile(pattern), around / pattern.tile_m, along / pattern.tile_m)
        x, y = np.abs(points[:, 0]), points[:, 1]
        fly = (x < 0.004) & (points[:, 2] > 0) & (y > self._hip_y - 0.05)
        side = (np.abs(np.abs(around) / 0.085 - np.pi / 2) < 0.05) & (y < self._hip_y - 0.06)
        pocket = (np.abs(y - self._hip_y - 0.02) < 0.004) & (x > 0.05) & (points[:, 2] < 0)
        hem = np.abs(self._in_bottom(points, look) - 0.02) < 0.003
        return np.asarray(np.where((fly | side | pocket | hem)[:, None], colour * 0.72, colour), np.float32)

    def _shoes(self, points: Floats, look: Look) -> Floats32:
        upper, sole = (np.array(colour, np.float32) for colour in look.shoes)
        colour = np.broadcast_to(upper, points.shape)
        lace = (
            (points[:, 2] > 0.02)
            & (points[:, 2] < 0.12)
            & (points[:, 1] > self._sole_y + 0.045)
            & ((points[:, 2] % 0.022) < 0.009)
        )
        colour = np.where(lace[:, None], sole, colour)
        return np.asarray(np.where((points[:, 1] < self._sole_y + 0.026)[:, None], sole, colour), np.float32)


def _ramp(inside_m: Floats, width_m: float) -> Floats:
    t = np.clip(inside_m / width_m, 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t))


def _eyeball(from_centre_N3: Floats, look: Look) -> Floats32:
    radius = np.hypot(from_centre_N3[:, 0], from_centre_N3[:, 1])
    front = from_centre_N3[:, 2] > 0
    colour = np.full((len(radius), 3), 0.82, np.float32)
    colour[front & (radius < 0.0068)] = look.iris
    colour[front & (radius < 0.0032)] = 0.03
    return colour


def vertex_normals(verts_X3: Floats, faces_F3: Ints) -> Floats:
    """Area-weighted unit normals (X, 3); a vertex without faces gets zeros."""
    a, b, c = (verts_X3[faces_F3[:, i]] for i in range(3))
    normals_F3 = np.cross(b - a, c - a)
    total = np.zeros_like(verts_X3)
    for axis in range(3):
        total[:, axis] = np.bincount(faces_F3.ravel(), np.repeat(normals_F3[:, axis], 3), minlength=len(verts_X3))
    return np.asarray(total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12))


def _texel_points(body: BodyModel) -> tuple[Ints, Floats, Ints, tuple[Ints, Ints]]:
    """Rasterise the T-pose into texture space.

    Returns:
        group of each covered texel (N,), its point on the T-pose (N, 3), its flat index (N,), and the gutter: flat indices of
        texels just outside the charts and of the covered texels that they copy.
    """
    import cv2

    corners_F32 = body.uvs_U2[body.face_uvs_F3].astype(np.float64) * TEXTURE_PX - 0.5
    low = np.floor(corners_F32.min(axis=1)).astype(np.int64)
    extent = np.ceil(corners_F32.max(axis=1)).astype(np.int64) - low + 1
    face_of = np.full(TEXTURE_PX * TEXTURE_PX, -1, dtype=np.int64)
    weights = np.zeros((TEXTURE_PX * TEXTURE_PX, 3))
    size = extent.max(axis=1)
    for bucket in np.unique(np.ceil(np.log2(size)).astype(np.int64)):
        faces = np.flatnonzero(np.ceil(np.log2(size)).astype(np.int64) == bucket)
        side = np.arange(2**bucket)
        for chunk in np.array_split(faces, max(1, len(faces) * len(side) ** 2 // 2_000_000)):
            at = low[chunk, None, None] + np.stack(np.meshgrid(side, side), axis=-1)[None]
            bary = _barycentric(corners_F32[chunk], at.astype(np.float64))
            hit = (bary >= -1e-6).all(axis=-1) & (at >= 0).all(axis=-1) & (at < TEXTURE_PX).all(axis=-1)
            flat = (at[..., 1] * TEXTURE_PX + at[..., 0])[hit]
            face_of[flat] = np.broadcast_to(chunk[:, None, None], hit.shape)[hit]
            weights[flat] = bary[hit]
    covered = np.flatnonzero(face_of >= 0)
    points = np.einsum("nk,nkc->nc", weights[covered], body.template_X3[body.faces_F3[face_of[covered]]])
    empty = (face_of < 0).reshape(TEXTURE_PX, TEXTURE_PX)
    distance, label = cv2.distanceTransformWithLabels(
        empty.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    owner = np.zeros(int(label.max()) + 1, dtype=np.int64)
    owner[label.ravel()[covered]] = covered
    gutter = np.flatnonzero(empty.ravel() & (distance.ravel() < 9.0))
    return body.face_group_F[face_of[covered]], points, covered, (gutter, owner[label.ravel()[gutter]])


def _barycentric(corners_F32: Floats, at_FHW2: Floats) -> Floats:
    a, b, c = (corners_F32[:, None, None, i] for i in range(3))
    cross = (b - a)[..., 0] * (c - a)[..., 1] - (b - a)[..., 1] * (c - a)[..., 0]
    cross = np.where(np.abs(cross) < 1e-12, 1e-12, cross)
    from_a = at_FHW2 - a
    second = (from_a[..., 0] * (c - a)[..., 1] - from_a[..., 1] * (c - a)[..., 0]) / cross
    third = ((b - a)[..., 0] * from_a[..., 1] - (b - a)[..., 1] * from_a[..., 0]) / cross
    return np.stack([1.0 - second - third, second, third], axis=-1)
