"""Stands for rendered data where a test is about what is made of it."""

import numpy as np

from manifests.types import Domain
from training.examples.base import About, Example


def fake_free(rows_by_split, *, domain=Domain.HAND, labels=()):
    """A class to put in the place of `Free`: rows are dicts with key, pose (R, 3), and what else an example needs."""

    class FakeFree:
        def __init__(self, root, *, split):
            self.rows = rows_by_split[split]
            self.about = About(
                name=f"free_{domain}", domain=domain, split=split, labels=("pose", *labels), protocol="made up"
            )

        def __len__(self):
            return len(self.rows)

        def __getitem__(self, index):
            row = self.rows[index]
            return Example(
                key=row["key"],
                rgb_HW3=row.get("rgb", np.zeros((8, 8, 3), np.uint8)),
                square_xyxy_px=np.array(row.get("square", [-0.5, -0.5, 7.5, 7.5])),
                labels={name: row[name] for name in ("pose", *labels)},
            )

        def subjects(self):
            return [row.get("subject") for row in self.rows]

        def keys(self):
            return [row["key"] for row in self.rows]

        def poses(self):
            return np.stack([row["pose"] for row in self.rows])

        def sides(self):
            return [row.get("side") for row in self.rows]

    return FakeFree
