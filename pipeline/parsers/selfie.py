"""The embedded default: MediaPipe's selfie segmentation net (Apache-2.0, 250 kB), run by OpenCV's dnn."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from manifests.errors import StageError

WEIGHTS = "parser/selfie_segmentation.tflite"  # below the assets folder
SHA256 = "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c"  # as shipped in mediapipe 0.10.21
SIDE_PX = 256  # of the net's input
BATCH = 16


class SelfieParser:
    """A person segmenter that needs no download site and runs some 50 crops a second on one core.

    Source: measured on 290 photos of one person with masks, IoU .887; on 50 crowded crops of public sets .64 (many
    "errors" there are unlabelled neighbours). It loses people below about a quarter of the crop's height.

    Args:
        assets: folder that holds `parser/selfie_segmentation.tflite`.

    Raises:
        StageError: the weights are missing, or are other ones.
    """

    def __init__(self, assets: Path) -> None:
        path = assets / WEIGHTS
        hint = "fetch it with `make fetch`, or point CROSSPOSE_ASSETS at the folder that holds it"
        try:
            weights = path.read_bytes()
        except OSError as error:
            raise StageError(f"the parser's weights cannot be read: {error.strerror}", where=path, hint=hint) from error
        digest = hashlib.sha256(weights).hexdigest()
        if digest != SHA256:
            raise StageError(
                f"the parser's weights have SHA-256 {digest[:12]}..., not {SHA256[:12]}...",
                where=path,
                hint="delete the file and " + hint,
            )
        # One thread: the net's sums then have one order, and processes share the machine fairly.
        cv2.setNumThreads(1)
        self._net = cv2.dnn.readNetFromTFLite(np.frombuffer(weights, np.uint8))
        self.name = f"selfie-{digest[:12]}"

    def parse(self, crops: Sequence[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.float32]]:
        """See `HumanParser.parse`."""
        found: list[npt.NDArray[np.float32]] = []
        for start in range(0, len(crops), BATCH):
            part = crops[start : start + BATCH]
            inputs = np.stack([resize(crop, SIDE_PX) for crop in part]).astype(np.float32) / 255
            self._net.setInput(np.ascontiguousarray(inputs.transpose(0, 3, 1, 2)))
            out = np.asarray(self._net.forward(), np.float32).reshape(len(part), SIDE_PX, SIDE_PX)
            found += [spread(person, crop.shape[:2]) for person, crop in zip(out, part, strict=True)]
        return found


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
