import io
import json
import math
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from rich.console import Console

from manifests.errors import RecipeError, SourceError, TrainingError
from tests.support import toy_task
from tests.support.toy_task import ToyExamples, ToyTask, draw_example
from training.__main__ import main
from training.finetuning.evaluate import (
    Evaluation,
    _class_of,
    _interval,
    evaluate,
    evaluate_run,
    scores_table,
    values_of,
)
from training.finetuning.evaluate import (
    draw_example as draw_prediction,
)
from training.finetuning.finetune import finetune
from training.finetuning.measure import Measured, load_finetuned, measure, whole
from training.finetuning.predict import predict, square_of
from training.tasks.base import Score
from training.tasks.datasets import open_examples

CPU = torch.device("cpu")


@pytest.fixture
def run(tmp_path, recipe):
    finetune(replace(recipe, num_steps=2), tmp_path / "run")
    return tmp_path / "run"


def test_scores_are_exact_over_all_examples_whatever_the_batch(run):
    loaded = load_finetuned(run, CPU)
    part = whole(open_examples(replace(loaded.recipe.test[0], root=str(run))))
    scores = evaluate(loaded, part, device=CPU)
    one_by_one = evaluate(replace(loaded, recipe=replace(loaded.recipe, batch_size=7)), part, device=CPU)
    np.testing.assert_allclose(one_by_one.values_n["distance"], scores.values_n["distance"], rtol=1e-5)
    assert len(scores.keys) == 48
    assert scores.scores["distance"].value == pytest.approx(scores.values_n["distance"].mean(), rel=1e-6)


def test_the_scores_of_each_example_are_kept(run):
    told = json.loads((run / "scores.json").read_text())["datasets"][0]
    table = pq.read_table(run / "examples-toy-test.parquet").to_pydict()
    assert list(table) == ["key", "subject", "distance", "median"]
    assert table["key"][:3] == ["test/0", "test/1", "test/2"]
    assert table["subject"][13] == "test-1"
    assert np.mean(table["distance"]) == pytest.approx(told["scores"]["distance"]["value"], rel=1e-5)
    low, high = told["scores"]["distance"]["interval"]
    assert low < told["scores"]["distance"]["value"] < high


def test_the_best_answer_without_a_picture_is_scored_beside_the_network(run, tmp_path, monkeypatch):
    def middle(split):
        places = [draw_example(split, number).labels["keypoints_px"][0, :2] + 0.5 for number in range(48)]
        return np.array(places) / 64

    told = json.loads((run / "scores.json").read_text())["datasets"][0]["scores"]["distance"]
    apart = np.linalg.norm(middle("test") - middle("train").mean(axis=0), axis=1).mean()
    assert told["constant"] == pytest.approx(apart, abs=2e-3)
    again = evaluate_run(run, tmp_path / "again", given=[str(run)], test=None, device=CPU, console=None)
    assert again[0].constants["distance"] == pytest.approx(told["constant"])

    class TestOnly(ToyExamples):
        def __init__(self, root, *, split):
            if split == "train":
                raise TrainingError("there is no training set", where=root, hint="none")
            super().__init__(root, split=split)

    monkeypatch.setattr(toy_task, "ToyExamples", TestOnly)
    alone = evaluate_run(run, tmp_path / "alone", given=[str(run)], test=None, device=CPU, console=None)
    assert alone[0].constants == {}
    assert (
        json.loads((tmp_path / "alone/scores.json").read_text())["datasets"][0]["scores"]["distance"]["constant"]
        is None
    )


def test_an_interval_draws_people_and_not_pictures():
    """A hundred pictures of each of eight people, all pictures of one person alike: eight numbers are known, not 800."""
    rng = np.random.default_rng(0)
    people = rng.normal(0, 1, 8)
    values = np.repeat(people, 100)
    task = ToyTask()
    found = Measured(keys=(), arrays={"distance": values}, scores=task.scores({"distance": values}), constants={})
    low, high = _interval(task, "distance", found, values, [str(i // 100) for i in range(800)])
    deviation = people.std() / math.sqrt(8)
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.1)
    # The median of a set is no mean of its examples' medians: it is computed for every draw.
    low, high = _interval(task, "median", found, values, [str(i // 100) for i in range(800)])
    assert low < np.median(values) < high
    assert high - low > deviation
    assert _interval(task, "distance", found, values, ["one"] * 800) is None


def test_an_example_without_a_score_has_none():
    class Partial(ToyTask):
        def scores(self, measured):
            return {
                "distance": Score(
                    value=float(np.nanmean(measured["distance"])), unit="mm", better="lower", convention=""
                )
            }

    values = values_of(Partial(), {"distance": np.array([1.0, math.nan, 3.0])}, 3)["distance"]
    np.testing.assert_array_equal(values, [1.0, math.nan, 3.0])


class Refusing(ToyTask):
    """Of examples without a distance it says that nothing can be scored, as tasks do that pool joints or pixels."""

    def scores(self, measured):
        if np.isnan(measured["distance"]).all():
            raise ValueError("no example has a distance")
        value = float(np.nanmax(measured["distance"]))
        return {"distance": Score(value=value, unit="mm", better="lower", convention="")}


def test_one_example_of_which_nothing_is_known_ends_no_evaluation():
    arrays = {"distance": np.array([math.nan, 1.0, 3.0])}
    values = values_of(Refusing(), arrays, 3)
    np.testing.assert_array_equal(values["distance"], [math.nan, 1.0, 3.0])
    found = Measured(keys=(), arrays=arrays, scores=Refusing().scores(arrays), constants={})
    assert _interval(Refusing(), "distance", found, values["distance"], ["a", "b", "c"]) == (1.0, 3.0)


def test_a_dataset_of_which_nothing_is_known_is_refused_by_name(run):
    class Nowhere(Refusing):
        def measure(self, outputs, target):
            return {"distance": np.full(len(outputs), math.nan)}

    loaded = replace(load_finetuned(run, CPU), task=Nowhere())
    part = whole(open_examples(replace(loaded.recipe.test[0], root=str(run))))
    with pytest.raises(TrainingError, match=r"no example has a distance\n  where: toy, test"):
        measure(loaded, part, device=CPU)


def test_scores_that_are_not_known_are_null_in_json():
    score = Score(value=math.nan, unit="mm", better="lower", convention="none")
    about = open_examples_about()
    told = Evaluation(
        about=about, scores={"a": score}, intervals={"a": None}, constants={}, keys=("k",), subjects=("s",), values_n={}
    )
    assert json.loads(json.dumps(told.as_json(), allow_nan=False))["scores"]["a"]["value"] is None


def open_examples_about():
    from pathlib import Path

    from tests.support.toy_task import ToyExamples

    return ToyExamples(Path(), split="test").about


def test_a_run_is_scored_on_another_split_and_in_another_folder(run, tmp_path):
    (found,) = evaluate_run(run, tmp_path / "scores", given=[], test="toy/val", device=CPU, console=None)
    assert found.about.split == "val"
    names = {path.name for path in (tmp_path / "scores").iterdir()}
    assert names == {"scores.json", "examples-toy-val.parquet", "predictions-toy-val.png"}
    with pytest.raises(RecipeError, match="no reader is called nothing"):
        evaluate_run(run, tmp_path / "scores", given=["/"], test="nothing", device=CPU, console=None)


def test_a_folder_that_is_no_fine_tuning_says_so(tmp_path):
    with pytest.raises(TrainingError, match="there is no such file"):
        load_finetuned(tmp_path, CPU)
    (tmp_path / "recipe.json").write_text('{"recipe": {"name": "demo"}}')
    with pytest.raises(TrainingError, match="this is no fine-tuning"):
        load_finetuned(tmp_path, CPU)


def test_a_photograph_is_answered_as_the_example_is(run, tmp_path):
    """A box whose square is the example's: the same pixels, so the same answer."""
    example = draw_example("test", 4)
    Image.fromarray(example.rgb_HW3).save(tmp_path / "photo.png")
    files = predict(run, [tmp_path / "photo.png"], tmp_path / "out/answer.txt", device=CPU)
    assert {path.name for path in files} == {"answer.txt", "answer.png"}
    answer = np.array(json.loads((tmp_path / "out/answer.txt").read_text()))
    truth = example.labels["keypoints_px"][0, :2]
    loaded = load_finetuned(run, CPU)
    values = evaluate(loaded, whole(open_examples(replace(loaded.recipe.test[0], root=str(run)))), device=CPU)
    distance = np.linalg.norm(answer - (truth + 0.5) / 64)
    assert distance == pytest.approx(values.values_n["distance"][4], abs=1e-5)


def test_a_box_gets_its_margin_and_wrong_boxes_are_told(run, tmp_path):
    picture = draw_example("test", 4).rgb_HW3
    np.testing.assert_allclose(square_of([10, 20, 30, 60], picture), [20 - 24, 40 - 24, 20 + 24, 40 + 24])
    for outside in ([-30, 20, 0, 60], [10, 64, 30, 90], [10, 20, math.inf, 60]):
        with pytest.raises(TrainingError, match="outside the photograph of 64 x 64"):
            square_of(outside, picture)
    with pytest.raises(TrainingError, match="is empty"):
        square_of([10, 20, math.nan, 60], picture)
    Image.fromarray(draw_example("test", 4).rgb_HW3).save(tmp_path / "photo.png")
    photo = tmp_path / "photo.png"
    with pytest.raises(TrainingError, match="is empty"):
        predict(run, [photo], tmp_path / "a.txt", boxes=[(30, 20, 10, 60)], device=CPU)
    with pytest.raises(TrainingError, match="2 boxes for 1"):
        predict(run, [photo], tmp_path / "a.txt", boxes=[(1, 2, 3, 4)] * 2, device=CPU)
    with pytest.raises(TrainingError, match="2 photographs are given"):
        predict(run, [photo] * 2, tmp_path / "a.txt", device=CPU)
    with pytest.raises(TrainingError, match="toy asks for no side"):
        predict(run, [photo], tmp_path / "a.txt", side="left", device=CPU)
    with pytest.raises(SourceError, match=r"No such file[\s\S]*give a photograph"):
        predict(run, [tmp_path / "none.jpg"], tmp_path / "a.txt", device=CPU)


def test_a_photograph_is_turned_as_its_camera_was_held(run, tmp_path):
    upright = draw_example("test", 4).rgb_HW3
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(upright).save(tmp_path / "upright.png")
    Image.fromarray(np.rot90(upright).copy()).save(tmp_path / "turned.png", exif=exif)
    for name in ("upright", "turned"):
        predict(run, [tmp_path / f"{name}.png"], tmp_path / f"of_{name}.txt", device=CPU)
    assert (tmp_path / "of_turned.txt").read_text() == (tmp_path / "of_upright.txt").read_text()


def test_a_photograph_is_never_written_over(run, tmp_path):
    photo = tmp_path / "photo.png"
    Image.fromarray(draw_example("test", 4).rgb_HW3).save(photo)
    before = photo.read_bytes()
    with pytest.raises(TrainingError, match="would replace the photograph"):
        predict(run, [photo], tmp_path / "elsewhere/../photo.glb", device=CPU)
    assert photo.read_bytes() == before


def test_the_second_picture_is_shown_where_a_network_has_seen_one(tmp_path, recipe, caplog):
    both, photos = tmp_path / "both", [tmp_path / "one.png", tmp_path / "other.png"]
    finetune(replace(recipe, num_steps=1, options={"reads": "two"}), both)
    example = draw_example("test", 4)
    for photo, pixels in zip(photos, (example.rgb_HW3, example.second_HW3), strict=True):
        Image.fromarray(pixels).save(photo)
    predict(both, photos, tmp_path / "answer.txt", device=CPU)
    loaded = load_finetuned(both, CPU)
    part = whole(open_examples(replace(loaded.recipe.test[0], root=str(both))))
    drawn = draw_prediction(loaded, part, 4, device=CPU)
    assert drawn.shape == (224, 448, 3)
    with Image.open(tmp_path / "answer.png") as answer:
        np.testing.assert_array_equal(np.asarray(answer), drawn)
    assert not np.array_equal(drawn[:, 224:], drawn[:, :224])
    caplog.set_level("INFO")
    predict(both, photos[:1], tmp_path / "alone.txt", device=CPU)
    with Image.open(tmp_path / "alone.png") as alone:
        assert alone.size == (224, 224)
    assert "seen twice" in caplog.text


def test_a_caption_tells_what_a_picture_is_where_there_are_classes(tmp_path):
    class Told(ToyExamples):
        def __getitem__(self, index):
            example = super().__getitem__(index)
            return replace(example, labels={**example.labels, "class": index % 2})

    part = replace(whole(Told(tmp_path, split="test")), index=np.array([3, 4]))
    assert [_class_of(part, place) for place in (0, 1)] == [": right", ": left"]
    assert not _class_of(whole(ToyExamples(tmp_path, split="test")), 0)


def test_scores_are_printed_whole_on_a_narrow_screen(run):
    loaded = load_finetuned(run, CPU)
    part = whole(open_examples(replace(loaded.recipe.test[0], root=str(run))))
    evaluation = evaluate(loaded, part, device=CPU)
    long = replace(evaluation.scores["distance"], convention=" ".join(f"word{i}" for i in range(60)) + " [end]")
    console = Console(width=60, file=io.StringIO())
    console.print(scores_table(replace(evaluation, scores={"distance": long, "median": long})))
    told = console.file.getvalue()
    words = " ".join(told.split())
    assert f"distance, median: {long.convention}" in words
    assert evaluation.about.protocol in words


def test_an_unfinished_run_is_scored_and_called_so(run, caplog, tmp_path):
    caplog.set_level("INFO")
    given = {"given": (), "test": None, "device": CPU, "console": None}
    evaluate_run(run, tmp_path / "a", **given)
    assert "scoring the weights of step 2 on toy, test: 48 examples" in caplog.messages
    assert not any("not finished" in message for message in caplog.messages)
    (run / "finished.json").unlink()
    evaluate_run(run, tmp_path / "b", **given)
    assert "the run is not finished: its weights are of step 2 of 2" in caplog.messages


def test_the_command_line_goes_the_whole_way(tmp_path, capsys):
    small = tmp_path / "small.yaml"
    small.write_text(
        "recipe: smoke\nnum_steps: 2\nbatch_size: 4\ntrain: [{kind: toy}]\nvalidation: {kind: toy, split: val}\n"
        "test: [{kind: toy, split: test, options: {count: 12}}]\n"
    )
    out = tmp_path / "run"
    finetuning = ["finetune", "--task", "toy", "--recipe", str(small), "--data", str(tmp_path), "--out", str(out)]
    assert main([*finetuning, "--seed", "3"]) == 0
    told = capsys.readouterr().out
    assert "of the image's side" in told, "the convention stands beside the number"
    assert "95 %" in told
    assert main(["evaluate", "--run", str(out), "--task", "toy", "--test", "toy/val"]) == 0
    assert (out / "toy-val/scores.json").exists()
    Image.fromarray(draw_example("test", 4).rgb_HW3).save(tmp_path / "photo.png")
    asking = ["predict", "--run", str(out), "--image", str(tmp_path / "photo.png"), "--out", str(tmp_path / "a.txt")]
    assert main([*asking, "--task", "toy", "--box", "10,10,50,50"]) == 0
    assert main([*asking, "--box=-5,-5,50,50"]) == 0
    assert main([*asking, "--box", "10,10,50,50", "--box=-5,-5,50,50"]) == 2
    assert "2 boxes for 1 photographs" in capsys.readouterr().err
    assert (tmp_path / "a.png").exists()
    capsys.readouterr()
    assert main(["evaluate", "--run", str(out), "--test", "toy/tset"]) == 2
    assert "no split is called `tset`" in capsys.readouterr().err
    for wrong in (["--share", "half"], ["--share", "0"], ["--steps", "0"], ["--steps", "-3"], ["--log-every", "0"]):
        with pytest.raises(SystemExit):
            main([*finetuning, *wrong])
        assert wrong[0] in capsys.readouterr().err
    assert main([*asking, "--task", "body_mesh"]) == 2
    assert "the run is of the task toy" in capsys.readouterr().err
    assert main(["finetune", "--task", "toi", "--out", str(out)]) == 2
    assert "did you mean toy?" in capsys.readouterr().err
    assert main(finetuning) == 2
    assert "seed: 3 -> 0" in capsys.readouterr().err
