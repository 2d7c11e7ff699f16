"""Pairs to train on without any file: textured bodies of ellipses seen in two poses, over a smooth background.

The two images of a pair share colours, textures and background and differ in place and pose, so a reference helps.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from manifests.seeds import rng_for
from training.batch import CELL_PX, NUM_CELLS, STORED_PX, Batch


def draw_pair(name: str, number: int):
    """Two uint8 images (256, 256, 3) and their silhouettes (256, 256)."""
    rng = rng_for("toy", name, number)
    ground = cv2.resize(
        rng.integers(0, 256, (4, 4, 3), dtype=np.uint8), (STORED_PX, STORED_PX), interpolation=cv2.INTER_CUBIC
    )
    parts = rng.uniform(-1, 1, (5, 4))
    colours = rng.integers(0, 256, (5, 2, 3))
    stripes = rng.uniform(4, 14, 5)
    images, silhouettes = [], []
    for _ in range(2):
        image, silhouette = ground.copy(), np.zeros((STORED_PX, STORED_PX), np.uint8)
        place, pose = rng.uniform(100, 156, 2), rng.uniform(-0.5, 0.5, 5)
        for part, colour, width, turn in zip(parts, colours, stripes, pose, strict=True):
            centre = tuple(int(v) for v in place + 45 * part[:2])
            axes, angle = (int(22 + 12 * part[2]), int(45 + 15 * part[3])), float(np.degrees(part[0] * 3 + turn))
            mask = np.zeros_like(silhouette)
            cv2.ellipse(mask, centre, axes, angle, 0, 360, 1, -1)
            y, x = np.mgrid[:STORED_PX, :STORED_PX]
            along = x * np.cos(np.radians(angle)) + y * np.sin(np.radians(angle))
            pattern = np.where((along // width % 2 == 0)[..., None], colour[0], colour[1]).astype(np.uint8)
            image = np.where(mask[..., None] > 0, pattern, image)
            silhouette |= mask
        images.append(image)
        silhouettes.append(silhouette)
    return images, silhouettes


@dataclass
class ToyPairs:
    """In-memory source of the shape that the trainer expects."""

    num_train: int = 16
    num_validation: int = 8
    silhouettes: bool = True
    shards_hash: str = "toy"

    def __post_init__(self):
        self._pairs = {
            name: [draw_pair(name, i) for i in range(n)]
            for name, n in (("train", self.num_train), ("val", self.num_validation))
        }

    def batch(self, name: str, places: list[int], num_references: int = 1) -> Batch:
        pairs = [self._pairs[name][place % len(self._pairs[name])] for place in places]
        cells = []
        for role in (0, 1):
            sil = np.array([pair[1][role] for pair in pairs]).reshape(-1, NUM_CELLS, CELL_PX, NUM_CELLS, CELL_PX)
            cells.append((sil.mean(axis=(2, 4)) >= 0.5) & self.silhouettes)
        return Batch(
            np.array([pair[0][0] for pair in pairs]),
            np.array([pair[0][1] for pair in pairs]),
            *cells,
            np.array(places, dtype=np.int64),
            tuple(f"{name}/{place}" for place in places),
            # As from a shard without further views.
            np.array([[pair[0][1]] * (num_references - 1) for pair in pairs]) if num_references > 1 else None,
        )

    def about(self, batch, *, seed):
        """What a shard's JSON would say: a joint is known, the left shoulder, at the middle of the picture."""
        points = np.zeros((13, 3))
        points[1] = 127.5, 127.5, 1.0
        role = {"keypoints_set": "penn13", "keypoints_px": points.ravel().tolist()}
        return [
            {
                "source": "toy",
                "subject": f"person{place % 3}",
                "kind": "cross_view",
                "view_angle_rad": 0.5 * (place % 2),
                "dt_s": 0.0,
                "covisibility": None,
                "target": {"key": f"toy/val/s{place % 3}/{place:08d}/a/p0", **role},
                "reference": {"key": f"toy/val/s{place % 3}/{place:08d}/b/p0", **role},
            }
            for place in (int(key.split("/")[1]) for key in batch.keys)
        ]

    def train(self, *, seed: int, batch_size: int, position: int, rank: int, world: int, num_references: int = 1):
        while True:
            share = batch_size // world
            places = list(range(position + rank * share, position + (rank + 1) * share))
            yield self.batch("train", places, num_references)
            position += batch_size

    def validation(self, *, batch_size: int, limit: int, num_references: int = 1) -> Iterator[Batch]:
        num = min(limit, self.num_validation)
        for start in range(0, num, batch_size):
            yield self.batch("val", list(range(start, min(start + batch_size, num))), num_references)
