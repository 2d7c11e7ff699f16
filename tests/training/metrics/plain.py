"""The metrics once more, slowly, one point at a time, from their definitions."""

import math
from itertools import pairwise

import numpy as np


def distance(a, b):
    return math.sqrt(sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True)))


def mean_point(points):
    return [sum(float(p[axis]) for p in points) / len(points) for axis in range(3)]


def mpjpe_mm(predicted, true, root):
    """Of one image."""
    shift_p, shift_t = ([0, 0, 0], [0, 0, 0])
    if root:
        shift_p, shift_t = (mean_point([points[i] for i in root]) for points in (predicted, true))
    pairs = zip(predicted, true, strict=True)
    return 1000 * sum(distance(p - np.array(shift_p), t - np.array(shift_t)) for p, t in pairs) / len(true)


def horn(predicted, true):
    """Rotation, scale and residual by unit quaternions (Horn 1987): they cannot mirror, and no singular values are used."""
    p, t = predicted - np.array(mean_point(predicted)), true - np.array(mean_point(true))
    s = sum(np.outer(a, b) for a, b in zip(p, t, strict=True))
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = s
    n = np.array(
        [
            [xx + yy + zz, yz - zy, zx - xz, xy - yx],
            [yz - zy, xx - yy - zz, xy + yx, zx + xz],
            [zx - xz, xy + yx, -xx + yy - zz, yz + zy],
            [xy - yx, zx + xz, yz + zy, -xx - yy + zz],
        ]
    )
    values, vectors = np.linalg.eigh(n)
    w, x, y, z = vectors[:, -1]
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    scale = values[-1] / sum(distance(a, (0, 0, 0)) ** 2 for a in p)
    aligned = np.array([scale * turn @ a for a in p]) + np.array(mean_point(true))
    return aligned, sum(distance(a, b) ** 2 for a, b in zip(aligned, true, strict=True))


def pa_mpjpe_mm(predicted, true, *, mirror):
    found = [horn(predicted, true)]
    if mirror:
        found.append(horn(predicted * [-1, 1, 1], true))
    aligned = min(found, key=lambda one: one[1])[0]
    return mpjpe_mm(aligned, true, ())


def pck_auc(errors, limit, num):
    """The trapezoid rule, step by step."""
    curve = [sum(error <= limit * k / (num - 1) for error in errors) / len(errors) for k in range(num)]
    return sum((a + b) / 2 for a, b in pairwise(curve)) / (num - 1)


def f_score(predicted, true, threshold_mm):
    def share_near(from_, to):
        return sum(min(1000 * distance(a, b) for b in to) < threshold_mm for a in from_) / len(from_)

    precision, recall = share_near(predicted, true), share_near(true, predicted)
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def ssim(a, b):
    weights = {(y, x): math.exp(-(x * x + y * y) / (2 * 1.5**2)) for y in range(-5, 6) for x in range(-5, 6)}
    total, values = sum(weights.values()), []
    for one, other in zip(a, b, strict=True):
        for row in range(5, one.shape[0] - 5):
            for column in range(5, one.shape[1] - 5):
                at = [(row + y, column + x, w / total) for (y, x), w in weights.items()]
                mean_a = sum(w * one[y, x] for y, x, w in at)
                mean_b = sum(w * other[y, x] for y, x, w in at)
                var_a = sum(w * (one[y, x] - mean_a) ** 2 for y, x, w in at)
                var_b = sum(w * (other[y, x] - mean_b) ** 2 for y, x, w in at)
                both = sum(w * (one[y, x] - mean_a) * (other[y, x] - mean_b) for y, x, w in at)
                shade = (2 * mean_a * mean_b + 0.0001) / (mean_a**2 + mean_b**2 + 0.0001)
                values.append(shade * (2 * both + 0.0009) / (var_a + var_b + 0.0009))
    return sum(values) / len(values)
