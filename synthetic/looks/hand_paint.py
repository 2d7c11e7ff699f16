"""Paints hands: skin with creases, veins and nails, gloves, sleeves, rings and watches, into one texture.

Every texel of the hand knows its point and normal on the right hand's T-pose, so that all features are placed by anatomy; a
left hand wears the same texture on mirrored triangles. What is not part of the model has strips of its own.

Shape letters: S texture side, N texels of the hand, X vertices, F faces, U texture coordinates, P points of a line, H W strip.
"""

import itertools

import cv2
import numpy as np
import numpy.typing as npt

from manifests.seeds import rng_for
from synthetic.looks.canvas import vertex_normals
from synthetic.looks.hand_look import HandLook, Watch
from synthetic.models.hand import FINGERS, TIPS, HandModel
from synthetic.patterns import Colour, Floats32, Pattern, noise, sample_tile, tile

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Rect = tuple[float, float, float, float]

TEXTURE_PX = 768
GARMENTS = ("background", "skin", "nail", "glove", "ring", "watch", "sleeve")
SKIN, NAIL, GLOVE, RING, WATCH, SLEEVE = range(1, len(GARMENTS))

# Where things lie in the texture: u0, v0, u1, v1.
_HAND_RECT: Rect = (0.01, 0.01, 0.61, 0.61)
_STUMP_RECT: Rect = (0.01, 0.64, 0.61, 0.72)
ARM_RECT: Rect = (0.64, 0.01, 0.99, 0.40)
SLEEVE_RECT: Rect = (0.64, 0.43, 0.99, 0.99)
DIAL_RECT: Rect = (0.01, 0.76, 0.20, 0.95)
STRAP_RECT: Rect = (0.23, 0.76, 0.33, 0.95)
RING_RECTS: tuple[Rect, ...] = ((0.36, 0.76, 0.42, 0.95), (0.45, 0.76, 0.51, 0.95), (0.54, 0.76, 0.60, 0.95))
_GUTTER_PX = 6
_CREASE_M = 0.0006
_MAP_PX, _MAP_M = 512, 0.13  # a map of the back of the hand: its side, and how far it reaches from the wrist

# Lines across the fingers, millimetres beyond the joint and depth: on the back of second and third knuckle, on the palm's side.
_BACK_LINES = {
    2: ((-3.3, 0.5), (-1.7, 0.8), (-0.2, 1.0), (1.4, 0.9), (3.0, 0.6)),
    3: ((-1.4, 0.6), (0.0, 0.9), (1.3, 0.6)),
}
_PALM_LINES = {2: ((-0.9, 0.9), (0.9, 0.9)), 3: ((0.0, 1.0),)}


class HandPainter:
    """Paints the looks of hands of one right hand's shape.

    Args:
        right: a right hand with texture coordinates.
    """

    def __init__(self, right: HandModel) -> None:
        self._joints = right.joints_J3
        self._tips = right.template_X3[right.tip_vertices]
        self._palm = float(np.linalg.norm(self._joints[4]))
        self.uvs_U2 = _laid_out(right)
        skin = right.face_group_F == 0  # the lid of the stump has no place of its own in the texture
        face_S, weights, self._gutter = rasterise(self.uvs_U2[right.face_uvs_F3[skin]], TEXTURE_PX)
        self._texels = np.flatnonzero(face_S >= 0)
        corners = right.faces_F3[skin][face_S[self._texels]]
        normals_X3 = vertex_normals(right.template_X3, right.faces_F3[skin])
        share = weights[self._texels]
        self._points = np.einsum("nk,nkc->nc", share, right.template_X3[corners])
        self._normals = np.einsum("nk,nkc->nc", share, normals_X3[corners])
        weights_NJ = np.einsum("nk,nkj->nj", share, right.weights_XJ[corners].astype(np.float64))
        self._finger_N5 = np.stack([weights_NJ[:, 3 * f + 1 : 3 * f + 4].sum(axis=1) for f in range(5)], axis=1)
        self._palm_side = _ramp((0.1 - self._facing()) / 0.8)
        self._back = _ramp((self._facing() - 0.05) / 0.5)
        self._nails = self._find_nails()
        self._creases = self._find_creases()
        self._redness = self._find_redness()
        self._tone_shares = self._find_tones()
        self._places = self._points[:, 0], self._points[:, 2] + 0.7 * self._points[:, 1]
        on_fingers = self._finger_N5.max(axis=1)
        veined = self._back * np.clip(1 - 2.5 * on_fingers, 0, 1) * _ramp((0.022 - self._points[:, 0]) / 0.03)
        self._vein_texels = np.flatnonzero(veined > 0.01)
        self._veined = veined[self._vein_texels]
        column, row = np.rint(_on_map(self._points[self._vein_texels][:, [0, 2]])).astype(np.int64).T
        self._vein_places = (row, column)

    # -------------------------------------------------------------------------------------------------------- anatomy

    def _bone(self, finger: int, knuckle: int) -> tuple[Floats, Floats, float]:
        """Where a bone begins, its direction, its length."""
        start = self._joints[3 * finger + knuckle]
        end = self._joints[3 * finger + knuckle + 1] if knuckle < 3 else self._tips[TIPS.index(FINGERS[finger])]
        length = float(np.linalg.norm(end - start))
        return start, (end - start) / length, length

    def _outwards(self, finger: int) -> Floats:
        """Unit direction in which the back of a finger looks, across its last bone."""
        _, along, _ = self._bone(finger, 3)
        up = np.array([0.0, 1.0, 0.0])
        if FINGERS[finger] == "thumb":  # its nail looks away from the palm's middle
            up = -(self._joints[7] - [0.0, 0.4 * self._palm, 0.0] - self._joints[14])
        up = up - along * (up @ along)
        return np.asarray(up / np.linalg.norm(up))

    def _facing(self) -> Floats:
        """1 where a texel looks as the back of its finger does, -1 where it looks as the palm does."""
        facing = self._normals[:, 1].copy()
        thumb = FINGERS.index("thumb")
        share = np.clip(self._finger_N5[:, thumb] * 2.0 - 0.5, 0.0, 1.0)
        return np.asarray((1 - share) * facing + share * (self._normals @ self._outwards(thumb)))

    def _find_nails(self) -> tuple[Floats, Floats, Ints]:
        """Texels in and around nails: how far inside they lie (above 0), their place along it (0 root to 1 edge), and which."""
        inside, along_nail = np.full(len(self._points), -1.0), np.zeros(len(self._points))
        for finger, name in enumerate(FINGERS):
            start, along, length = self._bone(finger, 3)
            out = self._outwards(finger)
            across = np.cross(along, out)
            from_start = self._points - start
            t = from_start @ along / length
            own = (self._finger_N5[:, finger] > 0.6) & (self._normals @ out > 0.15) & (t > 0.3)
            radius = np.abs(from_start[own & (t < 0.9)] @ across).max()
            low, high = (0.52, 1.03) if name != "thumb" else (0.50, 1.03)
            u, w = (t - (low + high) / 2) / ((high - low) / 2), from_start @ across / (0.68 * radius)
            found = 1.0 - (np.abs(u) ** 3.5 + np.abs(w) ** 3.5) ** (1 / 3.5)
            inside = np.where(own, np.maximum(inside, found), inside)
            along_nail = np.where(own, (t - low) / (high - low), along_nail)
        near = np.flatnonzero(inside > -0.5)
        return inside[near], along_nail[near], near

    def _find_creases(self) -> Floats32:
        """How deep the skin is creased at each texel, 0 to 1."""
        points = self._points
        wave = noise(rng_for("hand", "creases"), (6, 14))
        shift = (sample_tile(wave[..., None], points[:, 0] / 0.06, points[:, 2] / 0.06)[:, 0] - 0.5) * 0.0022
        deep = np.zeros(len(points))

        def draw(distance_N: Floats, strength_N: Floats) -> None:
            np.maximum(deep, strength_N * np.exp(-np.square(distance_N / _CREASE_M)), out=deep)

        for finger, name in enumerate(FINGERS):
            own = _ramp((self._finger_N5[:, finger] - 0.25) / 0.2)
            for knuckle in (2, 3):
                start, along, _ = self._bone(finger, knuckle)
                t = (points - start) @ along
                near = (np.abs(t) < 0.012) * own
                for lines, side in ((_BACK_LINES, self._back), (_PALM_LINES, self._palm_side)):
                    for at_mm, depth in lines[knuckle]:
                        draw(t - at_mm * 1e-3 + shift, 0.75 * depth * side * near)
            if name != "thumb":
                start, along, length = self._bone(finger, 1)
                for share in (0.43, 0.49):
                    draw((points - start) @ along - share * length + 1.3 * shift, 0.8 * self._palm_side * own)
        palm = self._palm_side * np.clip(1.2 - self._finger_N5[:, :4].max(axis=1) * 2.0, 0.0, 1.0)
        for path, depth in self._palm_paths():
            draw(_distance(points[:, [0, 2]] + shift[:, None], path), depth * palm)
        wrist = np.clip(1 - np.abs(points[:, 0] - 0.006) / 0.01, 0, 1) * self._palm_side
        draw(points[:, 0] - 0.002 + 2 * shift, 0.7 * wrist)
        draw(points[:, 0] - 0.0055 + 2 * shift, 0.7 * wrist)
        return deep.astype(np.float32)

    def _palm_paths(self) -> list[tuple[Floats, float]]:
        """The three great lines of a palm in (x, z)."""
        flat = self._joints[:, [0, 2]]
        index, middle, pinky, ring = flat[1], flat[4], flat[7], flat[10]
        edge = index * 0.80 + (index - middle) * 0.45
        across = index - middle
        life = _curve(edge, 0.59 * middle + 0.25 * across, 0.33 * middle - 0.1 * across, 0.05 * middle + 0.27 * across)
        heart = _curve(pinky * 0.84 + (pinky - ring) * 0.5, ring * 0.82, middle * 0.88, (index + middle) / 2 * 1.0)
        head = _curve(edge, middle * 0.72, ring * 0.58, pinky * 0.5 + (pinky - ring) * 0.1)
        return [(life, 1.0), (heart, 0.95), (head, 0.9)]

    def _find_redness(self) -> Floats32:
        """Where blood shows through: fingertips, knuckles, the heel of the palm."""
        red = np.zeros(len(self._points))
        for finger in range(5):
            own = _ramp((self._finger_N5[:, finger] - 0.25) / 0.2)
            start, along, length = self._bone(finger, 3)
            red = np.maximum(red, 0.8 * own * _ramp(((self._points - start) @ along / length - 0.35) / 0.5))
            for knuckle, reach in ((1, 0.011), (2, 0.008), (3, 0.006)):
                near = np.linalg.norm(
                    self._points - self._bone(finger, knuckle)[0] - 0.4 * reach * self._outwards(finger), axis=1
                )
                red = np.maximum(red, 0.9 * self._back * np.exp(-np.square(near / (1.4 * reach))))
        heel = np.linalg.norm((self._points - self._joints[7] * [0.35, 1, 0.9])[:, [0, 2]], axis=1)
        return np.asarray(np.maximum(red, 0.5 * self._palm_side * np.exp(-np.square(heel / 0.03))), dtype=np.float32)

    # ---------------------------------------------------------------------------------------------------------- paint

    def paint(self, look: HandLook, side: str) -> Bytes:
        """Draw the texture of one hand, (S, S, 4) uint8: RGB and an index into `GARMENTS`; row 0 is v = 0."""
        flat = np.zeros((TEXTURE_PX * TEXTURE_PX, 4), dtype=np.uint8)
        flat[:, :3] = 128
        colour, kind = self._skin(look) if look.glove is None else self._glove(look, look.glove)
        flat[self._texels, :3] = _bytes(colour)
        flat[self._texels, 3] = kind
        flat[self._gutter[0]] = flat[self._gutter[1]]
        texture = flat.reshape(TEXTURE_PX, TEXTURE_PX, 4)
        _fill(texture, ARM_RECT, self._arm(look, *_strip(ARM_RECT)), SKIN)
        _fill(texture, SLEEVE_RECT, _sleeve(look, *_strip(SLEEVE_RECT)), SLEEVE)
        for ring, rect in zip([ring for ring in look.rings if ring.side == side], RING_RECTS, strict=False):
            _fill(texture, rect, _metal(ring.colour, *_strip(rect)), RING)
        if look.watch is not None and look.watch.side == side:
            _fill(texture, DIAL_RECT, _dial(look.watch, *_strip(DIAL_RECT)), WATCH)
            _fill(texture, STRAP_RECT, _strap(look.watch, *_strip(STRAP_RECT)), WATCH)
        return texture

    def _skin(self, look: HandLook) -> tuple[Floats32, npt.NDArray[np.uint8]]:
        rng = rng_for(look.seed, "skin")
        along, across = self._places
        mottled = sample_tile(noise(rng, (3, 7, 15))[..., None], along / 0.12, across / 0.12) - 0.5
        fine = sample_tile(noise(rng, (40, 85))[..., None], along / 0.06, across / 0.06) - 0.5
        palm, inner, back = _tones(np.array(look.skin))
        colour = self._tone_shares @ np.stack([palm, inner, back]).astype(np.float32)
        strength = 0.5 + 0.7 * look.mottled
        colour *= 1 + 0.10 * strength * mottled * np.array([0.7, 1.0, 1.1], dtype=np.float32) + 0.07 * fine
        colour *= 1 - self._redness[:, None] * (0.75 + 0.5 * mottled) * (
            strength * np.array([0.02, 0.11, 0.10], dtype=np.float32)
        )
        colour[self._vein_texels] *= 1 - self._veins(look, rng)
        depth = (0.13 + 0.27 * look.age) * (1 + 0.8 * mottled)
        colour *= 1 - self._creases[:, None] * depth * np.array([0.75, 1.0, 1.0], dtype=np.float32)
        kind = np.full(len(colour), SKIN, dtype=np.uint8)
        inside, along_nail, near = self._nails
        skin = (
            colour[near] * (1 - 0.22 * np.exp(-np.square(np.minimum(inside, 0.0) / 0.07)))[:, None]
        )  # the fold around
        nail = np.repeat(np.array(look.nail)[None], len(near), axis=0)
        if not look.polish:
            moon, edge = 0.35 * _ramp((0.22 - along_nail) / 0.08), 0.55 * _ramp((along_nail - 0.90) / 0.06)
            nail += (moon + edge)[:, None] * (np.array([0.95, 0.90, 0.86]) - nail)
        shine = 0.10 * np.exp(-np.square((along_nail - 0.45) / 0.3)) - 0.10 * np.exp(-np.maximum(inside, 0.0) / 0.12)
        nail = nail * (1 + shine[:, None]) + 0.04 * (shine[:, None] > 0)
        colour[near] = np.where(inside[:, None] > 0, nail, skin)
        kind[near[inside > 0]] = NAIL
        return colour, kind

    def _find_tones(self) -> Floats32:
        """Shares of the colours of palm, inner forearm and back, (N, 3); where the forearm begins they are the forearm's."""
        near_arm = _ramp((self._points[:, 0] + 0.008) / 0.04)
        share = (1 - near_arm) * self._palm_side + near_arm * (0.5 - 0.5 * self._normals[:, 1])
        return np.stack([share * (1 - near_arm), share * near_arm, 1 - share], axis=1).astype(np.float32)

    def _veins(self, look: HandLook, rng: np.random.Generator) -> Floats:
        """What veins and the hollows between sinews take from each colour, for the texels of the back of the hand."""
        flat = self._joints[:, [0, 2]]
        knuckles = flat[[1, 4, 10, 7]]
        gaps = (knuckles[1:] + knuckles[:-1]) / 2
        roots = np.array([[0.02, 0.012], [0.015, 0.0], [0.02, -0.014]])
        veins, branches = [], []
        for root, gap in zip(roots, gaps, strict=True):
            inner = [root + (gap - root) * t + rng.normal(0.0, 0.0045, 2) for t in (0.35, 0.7)]
            veins.append(_curve(root, *inner, gap * 0.98))
            other = gaps[int(rng.integers(3))]
            branches.append(_curve(inner[0], (inner[0] + other) / 2 + rng.normal(0.0, 0.003, 2), inner[1], other * 0.9))
        sinews = [np.stack([0.25 * knuckle, 0.98 * knuckle]) for knuckle in knuckles]
        vein = np.maximum(self._near(veins, 0.0013), 0.7 * self._near(branches, 0.0011))
        show = self._veined * (0.25 + 0.75 * look.age)
        hollow = 0.08 * (0.35 - self._near(sinews, 0.0028)) * show
        return np.asarray((vein * show)[:, None] * np.array([0.13, 0.075, 0.045]) + hollow[:, None])

    def _near(self, paths: list[Floats], width_m: float) -> Floats:
        """1 on lines in (x, z), falling off beside them, for the texels of the back of the hand."""
        empty = np.full((_MAP_PX, _MAP_PX), 255, dtype=np.uint8)
        lines = [np.round(_on_map(path) * 16).astype(np.int32) for path in paths]
        cv2.polylines(empty, lines, isClosed=False, color=0, thickness=1, shift=4)
        distance_m = cv2.distanceTransform(empty, cv2.DIST_L2, 5) * (2 * _MAP_M / _MAP_PX)
        return np.asarray(np.exp(-np.square(distance_m[self._vein_places] / width_m)), dtype=np.float64)

    def _glove(self, look: HandLook, pattern: Pattern) -> tuple[Floats32, npt.NDArray[np.uint8]]:
        points = self._points
        u, v = points[:, 0] / pattern.tile_m + 0.5 * (self._normals[:, 1] > 0), points[:, 2] / pattern.tile_m
        folds = noise(rng_for(look.seed, "glove"), (5, 11, 23))
        shade = 0.82 + 0.36 * sample_tile(folds[..., None], points[:, 0] / 0.09, (points[:, 2] + points[:, 1]) / 0.09)
        seam = np.exp(-np.square(self._facing() / 0.13)) * (self._finger_N5.max(axis=1) > 0.4)
        colour = sample_tile(tile(pattern), u, v) * shade * (1 - 0.35 * seam[:, None])
        return np.asarray(colour, dtype=np.float32), np.full(len(points), GLOVE, dtype=np.uint8)

    def _arm(self, look: HandLook, around_HW: Floats, along_HW: Floats) -> Floats:
        """The forearm's skin: as the palm on one side, as the back of the hand on the other."""
        rng = rng_for(look.seed, "arm")
        _, inner, back_rgb = _tones(np.array(look.skin))
        share = (0.5 - 0.5 * np.cos(2 * np.pi * around_HW))[..., None]  # around starts at the back
        colour = (1 - share) * back_rgb + share * inner
        mottled = sample_tile(noise(rng, (3, 7, 15))[..., None], around_HW, along_HW * 0.9) - 0.5
        fine = sample_tile(noise(rng, (40, 85))[..., None], around_HW * 3, along_HW * 3) - 0.5
        return np.asarray(colour * (1 + 0.10 * (0.5 + 0.7 * look.mottled) * mottled + 0.07 * fine))


def _tones(skin: Floats) -> tuple[Floats, Floats, Floats]:
    """Colours of palm, inner forearm, and back of the hand: palms are paler and redder, the more so the darker the skin."""
    darkness = float(np.clip(1.05 - skin.mean(), 0.15, 0.9))
    palm = skin + (0.20 + 0.36 * darkness) * (np.array([0.93, 0.70, 0.61]) - skin)
    return palm, 0.4 * palm + 0.6 * skin, skin


def _sleeve(look: HandLook, around_HW: Floats, along_HW: Floats) -> Floats:
    """Cloth of the person's upper garment with a cuff; `along` is 0 at the cuff, and the strip is half a metre long."""
    pattern = look.sleeve
    u, v = around_HW * 0.30, along_HW * STRIP_M
    colour = sample_tile(tile(pattern), u / pattern.tile_m, v / pattern.tile_m).astype(np.float64)
    cuff = v < look.cuff_m
    colour[cuff] = 0.35 * colour[cuff] + 0.65 * np.array(look.cuff)
    stitch = np.minimum(np.abs(v - look.cuff_m), np.abs(v - 0.004)) < 0.0012
    colour[stitch] *= 0.66
    folds = noise(rng_for(look.seed, "sleeve"), (4, 9, 19))
    return np.asarray(colour * (0.84 + 0.32 * sample_tile(folds[..., None], around_HW, v / 0.2)))


STRIP_M = 0.36  # length of the sleeve's strip


def _metal(colour: Colour, around_HW: Floats, across_HW: Floats) -> Floats:
    shine = (
        0.72
        + 0.30 * np.exp(-np.square((across_HW - 0.5) / 0.22))
        + 0.16 * np.sin(2 * np.pi * (3 * around_HW + across_HW))
    )
    return np.asarray(np.array(colour) * shine[..., None])


def _dial(watch: Watch, u_HW: Floats, v_HW: Floats) -> Floats:
    x, y = u_HW - 0.5, v_HW - 0.5
    radius, angle = np.hypot(x, y) * 2, np.arctan2(y, x)
    colour = np.broadcast_to(np.array(watch.case), (*x.shape, 3)) * (0.75 + 0.25 * np.cos(angle - 0.8))[..., None]
    colour = np.where((radius < 0.84)[..., None], np.array(watch.dial), colour)
    ink = 0.9 - 0.8 * np.mean(watch.dial)
    ticks = (np.abs((angle / (2 * np.pi) * 12 + 0.5) % 1 - 0.5) < 0.1) & (radius > 0.66) & (radius < 0.8)
    hands = ((np.abs(x) < 0.02) & (y > 0) & (y < 0.3)) | ((np.abs(y - 0.3 * x) < 0.025) & (x > 0) & (x < 0.2))
    return np.asarray(np.where((ticks | hands)[..., None], ink, colour))


def _strap(watch: Watch, around_HW: Floats, across_HW: Floats) -> Floats:
    links = 0.9 + 0.1 * np.sign(np.sin(2 * np.pi * 40 * around_HW)) * (watch.radius_m > 0.016)
    edge = 1 - 0.35 * (np.abs(across_HW - 0.5) > 0.38)
    return np.asarray(np.array(watch.strap) * (links * edge)[..., None])


# -------------------------------------------------------------------------------------------------------------- texture


def in_rect(rect: Rect, u: npt.ArrayLike, v: npt.ArrayLike) -> Floats:
    """Texture coordinates (..., 2) of places in a rectangle, each in [0, 1]."""
    u0, v0, u1, v1 = rect
    return np.stack([u0 + (u1 - u0) * np.asarray(u), v0 + (v1 - v0) * np.asarray(v)], axis=-1)


def _pixels(rect: Rect) -> tuple[int, int, int, int]:
    u0, v0, u1, v1 = (round(value * TEXTURE_PX) for value in rect)
    return u0, v0, u1, v1


def _strip(rect: Rect) -> tuple[Floats, Floats]:
    """Place in the rectangle of each of its texels, a gutter around it included."""
    x0, y0, x1, y1 = _pixels(rect)
    x = (np.arange(x0 - _GUTTER_PX, x1 + _GUTTER_PX) + 0.5) / TEXTURE_PX
    y = (np.arange(y0 - _GUTTER_PX, y1 + _GUTTER_PX) + 0.5) / TEXTURE_PX
    u, v = np.meshgrid((x - rect[0]) / (rect[2] - rect[0]), np.clip((y - rect[1]) / (rect[3] - rect[1]), 0, 1))
    return u, v


def _fill(texture_SS4: Bytes, rect: Rect, colour_HW3: Floats, kind: int) -> None:
    x0, y0, x1, y1 = _pixels(rect)
    where = texture_SS4[y0 - _GUTTER_PX : y1 + _GUTTER_PX, x0 - _GUTTER_PX : x1 + _GUTTER_PX]
    where[..., :3], where[..., 3] = _bytes(colour_HW3), kind


def _laid_out(right: HandModel) -> npt.NDArray[np.float32]:
    """The model's texture coordinates, its two charts each spread over a rectangle of the texture."""
    uvs = right.uvs_U2.astype(np.float64)
    stump = uvs[:, 1] > 0.5  # the body's texture has the forearm far above the hand
    out = np.zeros_like(uvs)
    low, high = uvs[~stump].min(axis=0), uvs[~stump].max(axis=0)
    spread = (uvs[~stump] - low) / (high - low).max()
    out[~stump] = in_rect(_HAND_RECT, spread[:, 0], spread[:, 1])
    low, high = uvs[stump].min(axis=0), uvs[stump].max(axis=0)
    spread = (uvs[stump] - low) / (high - low)
    out[stump] = in_rect(_STUMP_RECT, spread[:, 1], spread[:, 0])
    return out.astype(np.float32)


def rasterise(corners_F32: npt.NDArray[np.floating], size_px: int) -> tuple[Ints, Floats, tuple[Ints, Ints]]:
    """Find the face under each texel.

    Args:
        corners_F32: (F, 3, 2) texture coordinates of the faces' corners; row 0 is v = 0.
        size_px: side of the texture.

    Returns:
        (S * S,) the face, -1 none; (S * S, 3) barycentric coordinates in it, not negative; the gutter: flat indices of texels
        just outside of the charts, and of the covered texels that they copy.
    """
    at = corners_F32.astype(np.float64) * size_px - 0.5
    canvas = np.full((size_px, size_px), -1, dtype=np.int32)
    for face, corners in enumerate(np.round(at * 16).astype(np.int32)):
        cv2.fillConvexPoly(canvas, corners, face, lineType=cv2.LINE_8, shift=4)
    face_S = canvas.ravel().astype(np.int64)
    covered = np.flatnonzero(face_S >= 0)
    texel = np.stack([covered % size_px, covered // size_px], axis=1).astype(np.float64)
    a, b, c = at[face_S[covered]].transpose(1, 0, 2)

    def cross(p: Floats, q: Floats) -> Floats:
        return np.asarray(p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0])

    area = cross(b - a, c - a)
    area = np.where(np.abs(area) < 1e-9, 1e-9, area)
    second, third = cross(texel - a, c - a) / area, cross(b - a, texel - a) / area
    weights = np.zeros((len(face_S), 3))
    inside = np.clip(np.stack([1 - second - third, second, third], axis=1), 0.0, None)
    weights[covered] = inside / inside.sum(axis=1, keepdims=True)
    distance, label = cv2.distanceTransformWithLabels(
        (canvas < 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    owner = np.zeros(int(label.max()) + 1, dtype=np.int64)
    owner[label.ravel()[covered]] = covered
    gutter = np.flatnonzero((canvas.ravel() < 0) & (distance.ravel() < _GUTTER_PX))
    return face_S, weights, (gutter, owner[label.ravel()[gutter]])


def _curve(*points: npt.ArrayLike) -> Floats:
    """A smooth line through four points, (16, 2)."""
    a, b, c, d = (np.asarray(point, dtype=np.float64) for point in points)
    t = np.linspace(0, 1, 16)[:, None] * 3
    terms = []
    for index, point in enumerate((a, b, c, d)):
        others = [other for other in range(4) if other != index]
        terms.append(point * np.prod([(t - other) / (index - other) for other in others], axis=0))
    return np.asarray(sum(terms))


def _on_map(points_N2: Floats) -> Floats:
    return np.asarray((points_N2 / _MAP_M + 1) * (_MAP_PX / 2) - 0.5)


def _distance(points_N2: Floats, path_P2: Floats) -> Floats:
    """Distance (N,) of points from a line of straight pieces."""
    nearest = np.full(len(points_N2), np.inf)
    for a, b in itertools.pairwise(path_P2):
        step = b - a
        t = np.clip((points_N2 - a) @ step / max(float(step @ step), 1e-12), 0.0, 1.0)
        nearest = np.minimum(nearest, np.square(points_N2 - a - t[:, None] * step).sum(axis=1))
    return np.asarray(np.sqrt(nearest))


def _ramp(x: npt.ArrayLike) -> Floats:
    t = np.clip(np.asarray(x, dtype=np.float64), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t))


def _bytes(colour: npt.NDArray[np.floating]) -> Bytes:
    return np.asarray((np.clip(colour, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8))
