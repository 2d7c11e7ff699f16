"""The embedded default: two nets of MediaPipe (Apache-2.0), run by OpenCV's dnn.

The selfie segmentation net (250 kB) says which pixels are anybody; the mask of the pose net (6.4 MB) says which are the one
person that a crop is centred on, also in front of others.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from manifests.errors import StageError

# Below the assets folder: file, and SHA-256 as shipped in mediapipe 0.10.21.
EVERYBODY_NET = (
    "parser/selfie_segmentation.tflite",
    "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
)
ONE_NET = (
    "parser/pose_landmark_full.tflite",
    "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
)
ONE_OUTPUTS = ["Identity_1", "Identity_2"]  # how sure it is of a person, 0..1; logits of the person's pixels
SIDE_PX = 256  # of both nets' input
BATCH = 16


class SelfieParser:
    """A person segmenter that needs no download site; per core some 50 crops a second, and 20 of one person.

    Source: measured on 290 photos of one person with masks, IoU .887; on 50 crowded crops of public sets .64 (many
    "errors" there are unlabelled neighbours). On 12 people of COCO among others, their own pixels only, the mask of one
    person has precision .90, that of everybody .76. Both lose people below about a quarter of the crop's height.

    Args:
        assets: folder that holds the nets' files.

    Raises:
        StageError: weights are missing, or are other ones.
    """

    def __init__(self, assets: Path) -> None:
        # One thread: the net's sums then have one order, and processes share the machine fairly.
        cv2.setNumThreads(1)
        self._everybody = cv2.dnn.readNetFromTFLite(_weights(assets, *EVERYBODY_NET))
        # The new engine of OpenCV 5 gives only the last of several outputs, and a net from memory gets that engine.
        _weights(assets, *ONE_NET)
        self._one = cv2.dnn.readNetFromTFLite(str(assets / ONE_NET[0]), cv2.dnn.ENGINE_CLASSIC)
        self.name = f"selfie-{EVERYBODY_NET[1][:12]}-pose-{ONE_NET[1][:12]}"

    def parse(self, crops: Sequence[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.float32]]:
        """See `HumanParser.parse`."""
        found: list[npt.NDArray[np.float32]] = []
        for start in range(0, len(crops), BATCH):
            part = crops[start : start + BATCH]
            self._everybody.setInput(_inputs(part))
            out = np.asarray(self._everybody.forward(), np.float32).reshape(len(part), SIDE_PX, SIDE_PX)
            found += [spread(person, crop.shape[:2]) for person, crop in zip(out, part, strict=True)]
        return found

    def parse_one(self, crops: Sequence[npt.NDArray[np.uint8]]) -> list[tuple[npt.NDArray[np.float32], float]]:
        """See `OneParser.parse_one`."""
        found: list[tuple[npt.NDArray[np.float32], float]] = []
        for start in range(0, len(crops), BATCH):
            part = crops[start : start + BATCH]
            self._one.setInput(_inputs(part))
            sure, logits = self._one.forward(ONE_OUTPUTS)
            logits = np.clip(np.asarray(logits, np.float32).reshape(len(part), SIDE_PX, SIDE_PX), -30, 30)
            found += [
                (spread(1 / (1 + np.exp(-logit)), crop.shape[:2]), float(one))
                for logit, one, crop in zip(logits, np.asarray(sure).ravel(), part, strict=True)
            ]
        return found


def _weights(assets: Path, file: str, sha256: str) -> npt.NDArray[np.uint8]:
    path = assets / file
    hint = "fetch it with `make fetch`, or point CROSSPOSE_ASSETS at the folder that holds it"
    try:
        weights = path.read_bytes()
    except OSError as error:
        raise StageError(f"the parser's weights cannot be read: {error.strerror}", where=path, hint=hint) from error
    digest = hashlib.sha256(weights).hexdigest()
    if digest != sha256:
        raise StageError(
            f"the parser's weights have SHA-256 {digest[:12]}..., not {sha256[:12]}...",
            where=path,
            hint="delete the file and " + hint,
        )
    return np.frombuffer(weights, np.uint8)


def _inputs(crops: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
    """(B, 3, SIDE_PX, SIDE_PX) in [0, 1]."""
    images = np.stack([resize(crop, SIDE_PX) for crop in crops]).astype(np.float32) / 255
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def resize(crop: npt.NDArray[np.uint8], side_px: int) -> npt.NDArray[np.uint8]:
    """Resize an image to a square: by area when it shrinks, linearly when it grows."""
    if crop.shape[:2] == (side_px, side_px):
        return crop
    way = cv2.INTER_AREA if min(crop.shape[:2]) >= side_px else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(crop, (side_px, side_px), interpolation=way), np.uint8)


def spread(person: npt.NDArray[np.float32], shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Bring a probability map to the (height, width) of the crop it belongs to, and into [0, 1]."""
    if person.shape != tuple(shape):
        person = np.asarray(cv2.resize(person, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR), np.float32)
    return np.ascontiguousarray(np.clip(person, 0, 1), np.float32)
