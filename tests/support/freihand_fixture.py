"""FreiHAND in miniature: two hands before four backgrounds, two masks, and the evaluation download."""

import json
from pathlib import Path

import numpy as np

from tests.support import honest

SIZE = (224, 224)
NUM_UNIQUE = 2


def write_freihand(root: Path, *, training: bool = True) -> Path:
    """Write the dataset; without `training` it is the evaluation download, whose root is often given for the whole."""
    (lens,) = honest.ring(1, size=SIZE, radius_m=0.6)
    root.mkdir(parents=True)
    (root / "FIXTURE").write_text("synthetic pixels in the layout of FreiHAND\n")
    hands = [honest.hand(0, number) for number in range(NUM_UNIQUE)]
    drawn = [honest.draw(lens, [hand], instant=number, view=0) for number, hand in enumerate(hands)]
    labels = {
        "K": [lens.K.tolist()] * NUM_UNIQUE,
        "xyz": [lens.in_camera(hand.hand21()).tolist() for hand in hands],
        "mano": [[[0.0] * 61]] * NUM_UNIQUE,
        "verts": [[[0.0] * 3] * 778] * NUM_UNIQUE,
        "scale": [0.03] * NUM_UNIQUE,
    }
    if training:
        for number in range(4 * NUM_UNIQUE):
            honest.write_jpeg(root / "training" / "rgb" / f"{number:08d}.jpg", drawn[number % NUM_UNIQUE].rgb)
        for number, one in enumerate(drawn):
            mask = np.repeat(one.mask(0)[..., None], 3, axis=2).astype(np.uint8) * 255
            honest.write_jpeg(root / "training" / "mask" / f"{number:08d}.jpg", mask)
        for name, values in labels.items():
            (root / f"training_{name}.json").write_text(json.dumps(values))
    for number, one in enumerate(drawn):
        honest.write_jpeg(root / "evaluation" / "rgb" / f"{number:08d}.jpg", one.rgb)
    for name in ("K", "scale"):
        (root / f"evaluation_{name}.json").write_text(json.dumps(labels[name]))
    return root
