"""What a camera does to light: blur, noise, a white balance that is a little off, JPEG.

Light is linear in the square of a pixel's value, as in the shader. Labels of a view stay those of the scene.
Shape letters: H W image.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats32 = npt.NDArray[np.float32]

READ_SHARE = 0.02  # of the noise's variance at white is there in the dark


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensor:
    """How bad cameras may be; how bad one is, is drawn for each image. 0 switches a fault off.

    Attributes:
        noise: largest standard deviation at white, in linear light where white is 1.
        blur: largest blur, pixels: the diameter of a point out of focus, or the length of a streak.
        jpeg: how far the JPEG quality may fall below 100.
        white_balance: largest logarithm by which red is too strong and blue too weak, or the other way round.
        seed: of the scene's images.
    """

    noise: float
    blur: float
    jpeg: float
    white_balance: float
    seed: int


def expose(rgb: Bytes, sensor: Sensor, rng: np.random.Generator) -> Bytes:
    """Take the picture.

    Args:
        rgb: (H, W, 3) uint8, what was rendered.
        sensor: the faults.
        rng: `rng_for(sensor.seed, "sensor", instant, view)`.

    Returns:
        (H, W, 3) uint8, a new array; equal bytes if all faults are off.
    """
    noise, blur, jpeg, balance = rng.uniform(0.0, (sensor.noise, sensor.blur, sensor.jpeg, 1.0)).tolist()
    balance = (2.0 * balance - 1.0) * sensor.white_balance
    out = rgb.copy()
    if sensor.noise or sensor.blur or sensor.white_balance:
        light = np.square(rgb.astype(np.float32) / 255.0)
        if sensor.blur:
            light = cv2.filter2D(light, -1, _kernel(blur, rng), borderType=cv2.BORDER_REFLECT_101)
        if sensor.noise:
            deviation = noise * np.sqrt((1.0 - READ_SHARE) * light + READ_SHARE)
            light = light + deviation * rng.standard_normal(light.shape, dtype=np.float32)
        light = light * np.exp(np.array([balance, 0.0, -balance], dtype=np.float32))
        out = (np.sqrt(np.clip(light, 0.0, 1.0)) * 255.0 + 0.5).astype(np.uint8)
    if sensor.jpeg:
        quality = round(100.0 - jpeg)
        _, data = cv2.imencode(".jpg", out[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        read = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert read is not None, "what was just encoded"
        out = np.ascontiguousarray(read[..., ::-1], dtype=np.uint8)
    return out


def _kernel(blur_px: float, rng: np.random.Generator) -> Floats32:
    """A disc or a streak of that diameter, as shares of light; drawn eight times as fine."""
    fine, side = 8, 2 * int(np.ceil(blur_px / 2.0)) + 1
    at = (np.arange(side * fine) + 0.5) / fine - side / 2.0
    x, y = np.meshgrid(at, at)
    angle = rng.uniform(0.0, np.pi)
    if rng.random() < 0.5:
        inside = np.hypot(x, y) <= max(blur_px, 1.0) / 2.0
    else:
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        inside = (np.abs(along) <= max(blur_px, 1.0) / 2.0) & (np.abs(across) <= 0.5)
    share = inside.reshape(side, fine, side, fine).mean(axis=(1, 3))
    return np.asarray(share / share.sum(), dtype=np.float32)
