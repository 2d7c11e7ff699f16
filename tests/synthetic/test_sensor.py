import dataclasses

import cv2
import numpy as np
import pytest

from manifests.seeds import rng_for
from synthetic.sensor import READ_SHARE, Sensor, expose

OFF = Sensor(noise=0.0, blur=0.0, jpeg=0, white_balance=0.0, seed=7)
ALL = Sensor(noise=0.1, blur=4.0, jpeg=60, white_balance=0.2, seed=7)


def scene(size: int = 96) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(30, 226, (12, 12, 3), dtype=np.uint8)
    return np.clip(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), 0, 255)


def shot(rgb: np.ndarray, sensor: Sensor, instant: int = 0, view: int = 0) -> np.ndarray:
    return expose(rgb, sensor, rng_for(sensor.seed, "sensor", instant, view))


def light(rgb: np.ndarray) -> np.ndarray:
    return np.square(rgb / 255.0)


def test_no_fault_leaves_every_byte() -> None:
    rgb = np.arange(256, dtype=np.uint8).repeat(48).reshape(64, 64, 3)
    taken = shot(rgb, OFF)
    assert taken.tobytes() == rgb.tobytes()
    assert taken is not rgb


def test_equal_names_give_equal_pictures_and_others_differ() -> None:
    rgb = scene()
    before = rgb.copy()
    first = shot(rgb, ALL, 1, 2)
    assert (rgb == before).all(), "the rendered image is left alone"
    assert first.shape == rgb.shape
    assert first.dtype == np.uint8
    assert first.flags.c_contiguous
    assert first.tobytes() == shot(rgb, ALL, 1, 2).tobytes()
    others = [shot(rgb, ALL, 2, 1), shot(rgb, ALL, 1, 1), shot(rgb, dataclasses.replace(ALL, seed=8), 1, 2)]
    assert len({first.tobytes(), *(other.tobytes() for other in others)}) == 4


def test_noise_grows_with_light_as_promised() -> None:
    sensor = dataclasses.replace(OFF, noise=0.1)
    ratios = []
    for index in range(12):
        strength = rng_for(sensor.seed, "sensor", 0, index).uniform(0.0, (0.1, 0.0, 0, 1.0))[0]
        for value in (70, 120, 180):
            flat = np.full((128, 128, 3), value, dtype=np.uint8)
            seen = light(shot(flat, sensor, 0, index))
            promised = strength**2 * ((1 - READ_SHARE) * (value / 255) ** 2 + READ_SHARE)
            if promised**0.5 < 0.01 or promised**0.5 > 0.3 * (value / 255) ** 2:
                continue  # rounding to bytes, or clipping, would be measured instead
            assert seen.mean() == pytest.approx((value / 255) ** 2, abs=0.004), "noise does not brighten"
            ratios.append(seen.var() / promised)
    assert len(ratios) > 12
    assert np.abs(np.array(ratios) - 1.0).max() < 0.06


@pytest.mark.parametrize("jpeg", [20, 70])
def test_jpeg_keeps_within_its_qualities(jpeg: int) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    sensor = dataclasses.replace(OFF, jpeg=jpeg)

    def error(picture: np.ndarray) -> float:
        return float(np.square(picture.astype(float) - rgb).mean())

    def coded(quality: int) -> float:
        _, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        return error(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])

    errors = np.array([error(shot(rgb, sensor, 0, view)) for view in range(60)])
    known = np.array([coded(quality) for quality in range(100 - jpeg, 101)])
    assert set(errors) <= set(known), "each is a JPEG of a quality that was allowed"
    used = 100 - jpeg + np.array([int(np.flatnonzero(known == e)[0]) for e in errors])
    assert used.min() <= 100 - 0.9 * jpeg
    assert used.max() >= 100 - 0.1 * jpeg


def test_blur_spreads_a_point_and_keeps_its_light() -> None:
    point = np.zeros((65, 65, 3), dtype=np.uint8)
    point[32, 32] = 255
    sensor = dataclasses.replace(OFF, blur=9.0)
    widest, round_ones, streaks = 0.0, 0, 0
    for view in range(40):
        seen = light(shot(point, sensor, 0, view))[..., 0]
        rows, columns = np.nonzero(seen > 0)
        assert max(np.ptp(rows), np.ptp(columns)) <= 9
        assert abs(rows.mean() - 32) < 0.5
        assert abs(columns.mean() - 32) < 0.5
        assert seen.sum() == pytest.approx(1.0, abs=0.06)
        spread = np.linalg.eigvalsh(np.cov(np.stack([rows, columns]))) if len(rows) > 9 else np.ones(2)
        widest = max(widest, float(np.hypot(np.ptp(rows), np.ptp(columns))))
        round_ones += bool(spread[0] > 0.6 * spread[1])
        streaks += bool(spread[0] < 0.3 * spread[1])
    assert widest > 6
    assert round_ones > 5
    assert streaks > 5


def test_white_balance_turns_red_against_blue() -> None:
    grey = np.full((8, 8, 3), 120, dtype=np.uint8)
    sensor = dataclasses.replace(OFF, white_balance=0.3)
    logs = np.array([np.log(light(shot(grey, sensor, 0, v))[0, 0] / (120 / 255) ** 2) for v in range(60)])
    assert np.abs(logs).max() <= 0.3 + 0.02
    assert np.abs(logs[:, 1]).max() < 0.01, "green stays"
    assert np.allclose(logs[:, 0], -logs[:, 2], atol=0.03)
    assert logs[:, 0].min() < -0.2
    assert logs[:, 0].max() > 0.2
