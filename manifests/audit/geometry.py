"""Rules about cameras: is a calibration possible, do the rays of a pair meet in one person, is its angle the true one.

Legend: n crops, p pairs. Rays go through the centres of the crops, where the person is.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from manifests.audit.findings import Finding, of_rows
from manifests.audit.keys import is_word
from manifests.types import Domain

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

ROTATION = 5e-3  # most that a rotation's rows may be off length 1 and right angles: published ones are rounded
MOST_FOCAL, LEAST_FOCAL = 100.0, 0.1  # focal length in widths of the picture: a telescope, and a fisheye of 160 degrees
MOST_SKEW = 0.1  # of the focal length
ANGLE_RAD = 1e-3  # more than any rounding of the road
# Half of a person with arms stretched out, and of two hands: rays to the middles of two boxes around one pass that near. Rays begin
# at their cameras: where two cameras face each other, the lines may come nearest behind one of them. Seen at most: 0.69 m in 1,152
# pairs of rendered bodies, 0.31 m in 600 of a real rig, 0.11 m in 2,304 of rendered hands.
MOST_APART_M = {Domain.BODY: 1.2, Domain.HAND: 0.5}


@dataclass(frozen=True, slots=True)
class Sight:
    """Where the cameras of crops stand and look; NaN where that is unknown.

    Attributes:
        centre: (n, 3) metres, in the world.
        ray: (n, 3) unit, through the centre of the crop.
        number: (n,) equal where the cameras stand and look the same way; those that are unknown have each their own.
    """

    centre: Floats
    ray: Floats
    number: Ints

    @classmethod
    def of(cls, crops: pa.Table) -> "Sight":
        """Compute it from rows of the crops table."""
        pose = fixed(crops.column("camera_from_world"))
        x_axis, y_axis, z_axis = (
            pose[:, first : first + 4].T.copy() for first in (0, 4, 8)
        )  # each with its translation
        fx, skew, cx, _, fy, cy, *_ = fixed(crops.column("intrinsics")).T
        middle = (crops.column("size_px").to_numpy() - 1) / 2
        with np.errstate(all="ignore"):
            y = (middle - cy) / fy
            x = (middle - cx - skew * y) / fx
            ray = x_axis[:3] * x + y_axis[:3] * y + z_axis[:3]
            ray /= np.sqrt(_dot(ray, ray))
            centre = -(x_axis[:3] * x_axis[3] + y_axis[:3] * y_axis[3] + z_axis[:3] * z_axis[3])
        return cls(centre.T.copy(), ray.T.copy(), _numbers(pose))


def fixed(column: pa.ChunkedArray) -> Floats:
    """(n, size) of a fixed list; NaN where it is null."""
    whole = column.combine_chunks()
    given: Floats = whole.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)
    if not whole.null_count:
        return given
    values = np.full((len(whole), column.type.list_size), np.nan)
    values[whole.is_valid().to_numpy(zero_copy_only=False)] = given
    return values


def look_at_cameras(name: str, data: pa.Table) -> Iterator[Finding]:
    """Hold the calibration of frames or crops to what a camera can be."""
    keys, width = data.column("key"), data.column("width" if name == "frames" else "size_px").to_numpy()
    known = [data.column(column).is_valid().to_numpy() for column in ("intrinsics", "camera_from_world")]
    # Value by value: reductions over axes of three take ten times as long.
    fx, skew, _, zero, fy, _, *last = fixed(data.column("intrinsics")).T.copy()
    x0, x1, x2, _, y0, y1, y2, _, z0, z1, z2, _, *bottom = pose = fixed(data.column("camera_from_world")).T.copy()
    with np.errstate(all="ignore"):
        lens = (fx > 0) & (fy > 0) & (np.abs(skew) < MOST_SKEW * fx) & (zero == 0) & np.isfinite(fx + fy)
        lens &= (last[0] == 0) & (last[1] == 0) & (last[2] == 1)
        if name == "frames":  # a crop is a small part of its frame: its focal length may be any number of its widths
            for focal in (fx / width, fy / width):
                lens &= (focal > LEAST_FOCAL) & (focal < MOST_FOCAL)
        rigid = (
            np.isfinite(pose.sum(axis=0)) & (bottom[0] == 0) & (bottom[1] == 0) & (bottom[2] == 0) & (bottom[3] == 1)
        )
        x, y, z = (x0, x1, x2), (y0, y1, y2), (z0, z1, z2)
        for one, other, due in ((x, x, 1), (y, y, 1), (z, z, 1), (x, y, 0), (x, z, 0), (y, z, 0)):
            rigid &= np.abs(one[0] * other[0] + one[1] * other[1] + one[2] * other[2] - due) < ROTATION
        turned = x0 * (y1 * z2 - y2 * z1) - x1 * (y0 * z2 - y2 * z0) + x2 * (y0 * z1 - y1 * z0)
        rigid &= turned > 0
    message = "no lens has these intrinsics"
    yield from of_rows("calibration", name, known[0] & ~lens, keys, message, where="intrinsics")
    message = "camera_from_world is no rotation and translation"
    yield from of_rows("calibration", name, known[1] & ~rigid, keys, message, where="camera_from_world")


def look_at_rays(
    pairs: pa.Table, across: Bools, fit: Bools, sight: Sight, target: Ints, reference: Ints
) -> Iterator[Finding]:
    """Hold the rays of pairs against each other.

    Args:
        pairs: rows of the pairs table.
        across: (p,) which of them are cross-view.
        fit: (p,) those that are what their kind says; others are told of elsewhere.
        sight: of crops.
        target: (p,) row of the target in `sight`.
        reference: (p,) that of the reference.
    """
    keys = pairs.column("key")
    told = pairs.column("view_angle_rad").to_numpy()
    apart, due = np.full(len(target), np.nan), np.zeros(len(target))
    # A camera that stands still sees one angle; most pairs across time are of such.
    rows = np.flatnonzero(across | (sight.number[target] != sight.number[reference]))
    one, other = target[rows], reference[rows]
    a, b, base = (
        np.ascontiguousarray(of.T) for of in (sight.ray[one], sight.ray[other], sight.centre[other] - sight.centre[one])
    )
    with np.errstate(all="ignore"):
        normal = _cross(a, b)
        steep = np.sqrt(_dot(normal, normal))
        due[rows] = np.arctan2(steep, _dot(a, b))
        wrong = np.abs(told - due) > ANGLE_RAD  # NaN, an unknown angle or camera, is not wrong
        # Along the line that is square to both rays, unless that is behind one of the cameras.
        ahead = (_dot(_cross(base, b), normal) > 0) & (_dot(_cross(base, a), normal) > 0)
        ends = np.minimum(_to_ray(base, a), _to_ray(-base, b))
        apart[rows] = np.where(ahead, np.abs(_dot(base, normal)) / steep, ends)
    message = (
        "view_angle_rad is not the angle between the rays through the two crops (0 for a camera that stands still)"
    )
    yield from of_rows("angle", "pairs", fit & wrong, keys, message, where="view_angle_rad")
    most = np.where(is_word(pairs.column("domain"), Domain.HAND), MOST_APART_M[Domain.HAND], MOST_APART_M[Domain.BODY])
    message = "the rays through the two crops do not meet in one person"
    yield from of_rows("meet", "pairs", fit & across & (apart > most), keys, message, where="rays")


def _to_ray(point: Floats, ray: Floats) -> Floats:
    """(p,) distance of points (3, p) from rays (3, p) that begin at the origin."""
    off = point - np.maximum(_dot(point, ray), 0) * ray
    return np.sqrt(_dot(off, off))


def _dot(a: Floats, b: Floats) -> Floats:
    product: Floats = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    return product


def _cross(a: Floats, b: Floats) -> Floats:
    return np.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def _numbers(pose: Floats) -> Ints:
    """(n,) numbers that are equal where poses are, (n, 16); NaN equals nothing."""
    # Sums of bits that are weighted by place: those of poses that differ are equal once in 2^50 times.
    sums = np.zeros(len(pose), np.uint64)
    for k, column in enumerate(pose.T, start=1):
        bits = (column + 0.0).view(np.uint64)  # -0 is 0
        sums += (bits ^ (bits >> np.uint64(31))) * np.uint64(pow(0x9E3779B97F4A7C15, k, 1 << 64))
    numbers: Ints = sums.view(np.int64)
    unknown = np.isnan(pose[:, 0])
    numbers[unknown] = np.arange(unknown.sum())
    return numbers
