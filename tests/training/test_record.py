import json

import numpy as np
import pytest
from PIL import Image

from manifests.errors import TrainingError
from training.record import METRICS, Record, _smooth, draw_loss_curve, read_metrics, steps_left_out


def test_lines_beyond_the_step_that_a_run_goes_on_from_are_dropped(tmp_path):
    with Record(tmp_path, step=0) as record:
        for step in (1, 2, 3):
            record.write("train", step, loss=1.0 / step)
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"kind": "train", "st')  # killed while writing
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3]
    with Record(tmp_path, step=2) as record:
        record.write("train", 3, loss=9.0)
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert lines == [{"kind": "train", "step": s, "loss": loss} for s, loss in ((1, 1.0), (2, 0.5), (3, 9.0))]


def test_numbers_reach_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Record(tmp_path, step=0) as record:
        record.write("validation", 5, loss=0.75)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("validation/loss")] == [(5, 0.75)]


def test_steps_left_out_are_counted_drawn_and_counted_anew_where_a_run_goes_on(tmp_path):
    with Record(tmp_path, step=0) as record:
        for step in range(1, 7):
            record.write("train", step, loss=1.0, left_out=int(step in (2, 5)))
        assert record.left_out == 2
    assert steps_left_out(read_metrics(tmp_path)) == [2, 5]
    draw_loss_curve(tmp_path, tmp_path / "with.png", zero_loss=0.9987)
    with Record(tmp_path, step=4) as record:
        assert record.left_out == 1
    plain = (tmp_path / METRICS).read_text().replace('"left_out": 1', '"left_out": 0')
    (tmp_path / METRICS).write_text(plain)
    draw_loss_curve(tmp_path, tmp_path / "without.png", zero_loss=0.9987)
    red = [np.isin(np.asarray(Image.open(tmp_path / name))[..., 0], 214).sum() for name in ("with.png", "without.png")]
    assert red[0] > red[1]


@pytest.mark.parametrize("num", [0, 1, 19, 200])
def test_smoothing_equals_a_mean_over_the_window(num):
    values = np.random.default_rng(0).random(num)
    window = max(1, int(num * 0.05))
    slow = [values[max(0, i + 1 - window) : i + 1].mean() for i in range(num)]
    np.testing.assert_allclose(_smooth(values), slow)


def test_a_curve_is_drawn_even_without_steps_and_a_full_disk_is_told(tmp_path):
    draw_loss_curve(tmp_path, tmp_path / "loss.png", zero_loss=0.9987)
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(TrainingError, match=r"cannot write(.|\n)*absent"):
        draw_loss_curve(tmp_path, tmp_path / "absent" / "loss.png", zero_loss=0.9987)
