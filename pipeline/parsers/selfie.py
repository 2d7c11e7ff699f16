"""The embedded default: two nets of MediaPipe (Apache-2.0), run by OpenCV's dnn or by LiteRT.

The selfie segmentation net (250 kB) says which pixels are anybody; the mask of the pose net (6.4 MB) says which are the one
person that a crop is centred on, also in front of others.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

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
EVERYBODY_OUTPUTS = ["activation_10"]  # probability of a person
ONE_OUTPUTS = ["Identity_1", "Identity_2"]  # how sure it is of a person, 0..1; logits of the person's pixels
SIDE_PX = 256  # of both nets' input
BATCH = 16

Floats = npt.NDArray[np.float32]
Net = Callable[[Floats], list[Floats]]  # (B, SIDE_PX, SIDE_PX, 3) in [0, 1] to each output, (B, ...)


class SelfieParser:
    """A person segmenter that needs no download site.

    Source: measured on 290 photos of one person with masks, IoU .887; on 50 crowded crops of public sets .64 (many
    "errors" there are unlabelled neighbours). On 12 people of COCO among others, their own pixels only, the mask of one
    person has precision .90, that of everybody .76. Both lose people below about a quarter of the crop's height. A core parses
    some 50 crops a second with OpenCV and 230 with LiteRT, of one person 20 and 60.

    Args:
        assets: folder that holds the nets' files.
        engine: what runs the nets; the probabilities of the two differ in the last digits.

    Raises:
        StageError: weights are missing, or are other ones, or the engine is not installed.
    """

    def __init__(self, assets: Path, *, engine: Literal["opencv", "litert"] = "opencv") -> None:
        load = _litert if engine == "litert" else _opencv
        self._everybody = load(_checked(assets, *EVERYBODY_NET), EVERYBODY_OUTPUTS)
        self._one = load(_checked(assets, *ONE_NET), ONE_OUTPUTS)
        nets = f"{EVERYBODY_NET[1][:12]}-pose-{ONE_NET[1][:12]}"
        self.name = f"selfie-{nets}" if engine == "opencv" else f"selfie-{engine}-{nets}"

    def parse(self, crops: Sequence[npt.NDArray[np.uint8]]) -> list[Floats]:
        """See `HumanParser.parse`."""
        found: list[Floats] = []
        for start in range(0, len(crops), BATCH):
            part = crops[start : start + BATCH]
            (out,) = self._everybody(_inputs(part))
            maps = out.reshape(len(part), SIDE_PX, SIDE_PX)
            found += [spread(person, crop.shape[:2]) for person, crop in zip(maps, part, strict=True)]
        return found

    def parse_one(self, crops: Sequence[npt.NDArray[np.uint8]]) -> list[tuple[Floats, float]]:
        """See `OneParser.parse_one`."""
        found: list[tuple[Floats, float]] = []
        for start in range(0, len(crops), BATCH):
            part = crops[start : start + BATCH]
            sure, out = self._one(_inputs(part))
            logits = np.clip(out.reshape(len(part), SIDE_PX, SIDE_PX), -30, 30)
            found += [
                (spread(1 / (1 + np.exp(-logit)), crop.shape[:2]), float(one))
                for logit, one, crop in zip(logits, sure.ravel(), part, strict=True)
            ]
        return found


def _opencv(path: Path, outputs: list[str]) -> Net:
    # One thread: the net's sums then have one order, and processes share the machine fairly.
    cv2.setNumThreads(1)
    # The new engine of OpenCV 5 gives only the last of several outputs; where it does, it is the faster one.
    engine = cv2.dnn.ENGINE_AUTO if len(outputs) == 1 else cv2.dnn.ENGINE_CLASSIC
    net = cv2.dnn.readNetFromTFLite(str(path), engine)

    def run(images: Floats) -> list[Floats]:
        net.setInput(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        found = [net.forward()] if len(outputs) == 1 else net.forward(outputs)
        return [np.asarray(out, np.float32) for out in found]

    return run


def _litert(path: Path, outputs: list[str]) -> Net:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise StageError(
            f"LiteRT is not installed: {error}",
            where="parser.engine",
            hint="pip install ai-edge-litert, or leave `engine` out",
        ) from error
    net = Interpreter(model_path=str(path), num_threads=1)
    net.allocate_tensors()
    (entry,) = (detail["index"] for detail in net.get_input_details())
    exits = {detail["name"]: detail["index"] for detail in net.get_output_details()}

    def run(images: Floats) -> list[Floats]:  # one by one: batches are not faster
        each = []
        for image in images:
            net.set_tensor(entry, image[None])
            net.invoke()
            each.append([net.get_tensor(exits[name]) for name in outputs])
        return [np.concatenate(out) for out in zip(*each, strict=True)]

    return run


def _checked(assets: Path, file: str, sha256: str) -> Path:
    """Where a net lies, its weights checked."""
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
    return path


def _inputs(crops: Sequence[npt.NDArray[np.uint8]]) -> Floats:
    """(B, SIDE_PX, SIDE_PX, 3) in [0, 1]."""
    return np.stack([resize(crop, SIDE_PX) for crop in crops]).astype(np.float32) / np.float32(255)


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
