"""A photo of everything around, behind a person on the ground, and the light that comes from it.

Convention: panoramas are equirectangular, twice as wide as high. The middle of the picture lies at -z of the world, its right
half towards +x, its top row at +y; `yaw_rad` turns all of this counterclockwise, seen from above.

A panorama knows directions, no distances. Its lower half is laid on the floor as a camera would have seen it that stood
`EYE_M` over the person's feet; all else on a sphere of `DOME_M` around that camera. So the ground stays under the feet from all
views and takes the person's shadow; what stands up from the ground within the dome is stretched along it.

Shape letters: H W panorama, S side of a picture.
"""

from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from manifests.geometry import camera_centre
from synthetic.places.room import SHADOW_SIZE_M
from synthetic.scene import Light, light_lobe

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

EYE_M = 1.6
DOME_M = 20.0
_GAMMA = 2.2
_LIGHT_ROWS = 64  # nine coefficients need no more
_PEAK = 0.95  # of the light on the brightest side
_BANDS = np.pi * np.array([1.0] + [2.0 / 3.0] * 3 + [0.25] * 5)  # what a diffuse surface makes of each coefficient
_LOWEST_LAMP = 0.35  # y of the direction of the lamp that casts the shadow


def look_up(panorama_HWC: Bytes, directions: npt.ArrayLike, *, yaw_rad: float = 0.0) -> Bytes:
    """Colours seen in directions.

    Args:
        panorama_HWC: (H, 2H, 3).
        directions: (A, B, 3) in the world, of any length.
        yaw_rad: turn of the panorama.

    Returns:
        (A, B, 3) uint8, between pixels by bilinear interpolation, across the seam too.
    """
    x, y, z = np.moveaxis(np.asarray(directions, dtype=np.float32), -1, 0)
    height, width = panorama_HWC.shape[:2]
    turn = np.arctan2(x, -z) / (2 * np.pi) + (yaw_rad / (2 * np.pi) + 0.5)  # from the left edge, in whole turns
    column = turn % 1.0 * width - 0.5
    row = np.clip(np.arctan2(np.hypot(x, z), y) / np.pi * height - 0.5, 0, height - 1)
    picture = cv2.remap(
        panorama_HWC,
        column.astype(np.float32),
        row.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )
    return np.asarray(picture, dtype=np.uint8)


def panorama_picture(
    panorama_HWC: Bytes,
    intrinsics: Floats,
    camera_from_world: Floats,
    image_px: int,
    *,
    zoom: int,
    yaw_rad: float = 0.0,
    shadow_SSC: Bytes | None = None,
) -> Bytes:
    """What a camera sees of a panorama that is laid on floor and dome.

    Args:
        panorama_HWC: (H, 2H, 3).
        intrinsics: (3, 3) K of the final image.
        camera_from_world: (4, 4).
        image_px: side of the final image.
        zoom: samples for each of its pixels, along each side.
        yaw_rad: turn of the panorama.
        shadow_SSC: share of light that arrives at the floor, as `room.floor_shadow` draws it.

    Returns:
        (S, S, 3) uint8 with S = image_px * zoom.

    Raises:
        ValueError: the camera stands below the floor or outside of the dome.
    """
    eye = camera_centre(camera_from_world)
    above = eye - (0.0, EYE_M, 0.0)
    if eye[1] <= 0 or np.linalg.norm(above) >= DOME_M:
        raise ValueError(f"a camera at {eye.round(2).tolist()} m does not stand on the floor of a dome of {DOME_M} m")
    gaze = _gaze(intrinsics, camera_from_world, image_px, zoom)
    above = above.astype(np.float32)
    # The space above the floor and in the sphere is convex: a ray leaves it where it first meets one of them.
    along = gaze @ above
    to_dome = -along + np.sqrt(along**2 - above @ above + DOME_M**2)
    to_floor = np.where(gaze[..., 1] < 0, eye[1] / np.maximum(-gaze[..., 1], 1e-9), np.inf)
    met = above + np.minimum(to_dome, to_floor)[..., None] * gaze
    picture = look_up(panorama_HWC, met, yaw_rad=yaw_rad)
    if shadow_SSC is None:
        return picture
    arrives = _shadow_at(shadow_SSC, met[..., 0], met[..., 2])
    dimmed = np.where(to_floor < to_dome, arrives, 1.0) ** (1 / _GAMMA)  # pixels are no linear light
    return np.asarray((picture * dimmed[..., None].astype(np.float32) + 0.5).astype(np.uint8))


def sky_picture(intrinsics: Floats, camera_from_world: Floats, image_px: int, *, zoom: int) -> Bytes:
    """A pale sky over gray ground, for what shows through the holes and over the edges of a mesh.

    Arguments and result are those of `panorama_picture`.
    """
    return look_up(_sky(), _gaze(intrinsics, camera_from_world, image_px, zoom))


@cache
def _sky() -> Bytes:
    rows = np.linspace(0.0, np.pi, _LIGHT_ROWS)
    at = (0.0, 1.2, 1.5, 1.65, np.pi)  # zenith, haze, horizon, ground, nadir
    colours = ((120, 160, 215), (190, 208, 225), (215, 220, 222), (128, 124, 118), (104, 100, 95))
    column_H3 = np.stack([np.interp(rows, at, channel) for channel in zip(*colours, strict=True)], axis=-1)
    return np.repeat(column_H3[:, None].round().astype(np.uint8), 2 * _LIGHT_ROWS, axis=1)


def _gaze(intrinsics: Floats, camera_from_world: Floats, image_px: int, zoom: int) -> npt.NDArray[np.float32]:
    """Unit directions (S, S, 3) in the world of a picture's samples."""
    at = ((np.arange(image_px * zoom) + 0.5) / zoom - 0.5).astype(np.float32)
    right, down, ahead = (camera_from_world[:3, :3].T @ np.linalg.inv(intrinsics)).T.astype(np.float32)
    gaze = at[:, None] * right + (
        at[:, None, None] * down + ahead
    )  # manifests.geometry.rays, a row and a column at a time
    return np.asarray(gaze / np.sqrt(np.einsum("yxc,yxc->yx", gaze, gaze))[..., None], dtype=np.float32)


def _shadow_at(shadow_SSC: Bytes, x: Floats, z: Floats) -> Floats:
    """Share of light that arrives at points of the floor; all of it outside of the picture."""
    side = len(shadow_SSC)
    column = (x / SHADOW_SIZE_M + 0.5) * side - 0.5
    row = (0.5 - z / SHADOW_SIZE_M) * side - 0.5
    shares = cv2.remap(
        shadow_SSC[..., 0], column.astype(np.float32), row.astype(np.float32), cv2.INTER_LINEAR, borderValue=255
    )
    return np.asarray(shares / 255.0, dtype=np.float64)


def light_from_panorama(panorama_HWC: Bytes, *, yaw_rad: float = 0.0) -> Floats:
    """Project the light that a panorama sends on spherical harmonics.

    Args:
        panorama_HWC: (H, 2H, 3).
        yaw_rad: turn of the panorama.

    Returns:
        (3, 9) coefficients in the order of `scene.light_lobe`, in linear light, over pi: under a panorama that is white everywhere a
        white diffuse surface looks white.
    """
    size = (2 * _LIGHT_ROWS, _LIGHT_ROWS)
    linear = cv2.resize((panorama_HWC / np.float32(255.0)) ** np.float32(_GAMMA), size, interpolation=cv2.INTER_AREA)
    polar = (np.arange(_LIGHT_ROWS) + 0.5) * np.pi / _LIGHT_ROWS
    around = ((np.arange(2 * _LIGHT_ROWS) + 0.5) / (2 * _LIGHT_ROWS) - 0.5) * 2 * np.pi - yaw_rad
    across = np.sin(polar)[:, None]
    x, y, z = across * np.sin(around), np.cos(polar)[:, None] + 0 * around, -across * np.cos(around)
    # Exact solid angles of the rows: their sum is a whole sphere's.
    edges = np.cos(np.arange(_LIGHT_ROWS + 1) * np.pi / _LIGHT_ROWS)
    solid = (edges[:-1] - edges[1:])[:, None] * np.pi / _LIGHT_ROWS
    lobes = np.stack([part + 0 * x for part in light_lobe((x, y, z))])  # type: ignore[arg-type]  # of arrays too
    return np.asarray(np.einsum("hwc,lhw,hw->cl", linear, lobes, solid + 0 * x) / np.pi)


def lamp_light(sh_C9: Floats) -> Light:
    """Light of a scene from what a panorama sends, exposed so that the brightest side of a white thing is nearly white.

    Convention: photos clip the sun, so their lamp is weaker than the real one; the shadow is as strong as the light is one-sided.

    Args:
        sh_C9: (3, 9), as `light_from_panorama` gives them.
    """
    steps = np.arange(500) + 0.5
    height, turn = 1 - 2 * steps / 500, steps * np.pi * (3 - np.sqrt(5))
    across = np.sqrt(1 - height**2)
    lobes = np.stack([part + 0 * height for part in light_lobe((across * np.cos(turn), height, across * np.sin(turn)))])  # type: ignore[arg-type]  # of arrays too
    brightest = float((sh_C9.mean(axis=0) * _BANDS @ lobes).max())
    sh = sh_C9 * (_PEAK / max(brightest, 1e-4))
    ambient, y, z, x = sh.mean(axis=0)[:4]
    strength = float(np.linalg.norm((x, y, z)))
    lamp = np.array((x, max(y, _LOWEST_LAMP * strength, 1e-6), z))
    lamp /= np.linalg.norm(lamp)
    one_sided = min(strength / max(np.sqrt(3) * ambient, 1e-6), 1.0)
    return Light(
        sh=tuple(tuple(row) for row in sh.round(5).tolist()),
        lamp=(float(lamp[0]), float(lamp[1]), float(lamp[2])),
        shadow=float(0.25 + 0.5 * one_sided),
    )
