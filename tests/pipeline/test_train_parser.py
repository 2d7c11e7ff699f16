"""A small parser trained on rendered people: the files it leaves, and that they are a parser."""

import json
import warnings

import cv2
import numpy as np
import pytest

from manifests.errors import SourceError, TrainingError
from pipeline.__main__ import main
from pipeline.parse import build_parser
from pipeline.parsers.quality import pixel_iou
from pipeline.parsers.train import RENDERS, draw, judge, read_photos, train_parser
from pipeline.recipes import ParserRecipe
from tests.support.samples import asset

PEOPLE = 3


def blob(rng, side=256):
    """A picture of a bright ellipse, and its silhouette: a person to a net that has five steps to learn."""
    image = rng.integers(0, 90, (8, 8, 3), dtype=np.uint8)
    image = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
    alpha = np.zeros((side, side), np.uint8)
    centre = tuple(int(v) for v in rng.integers(side * 3 // 8, side * 5 // 8, 2))
    cv2.ellipse(alpha, centre, (side // 8, side // 3), float(rng.uniform(0, 180)), 0, 360, 255, cv2.FILLED)
    image[alpha > 0] = rng.integers(170, 256, 3, dtype=np.uint8)
    return np.dstack([image, alpha])


def write_renders(out, *, seed=0):
    """Fill the folder where renders are kept, so that none is rendered."""
    (out / "renders").mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for person in range(PEOPLE):
        for render in range(RENDERS):
            assert cv2.imwrite(str(out / "renders" / f"{seed}-{person:05d}-{render}.png"), blob(rng))


def write_photos(folder, *, number=2):
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    rng = np.random.default_rng(1)
    for i in range(number):
        cutout = blob(rng, side=200)
        cv2.imwrite(str(folder / "images" / f"{i}.jpg"), cutout[..., :3])
        cv2.imwrite(str(folder / "labels" / f"{i}.png"), cutout[..., 3] // 255 * 7)  # any class but 0
    return folder


def trained(out, assets, **other):
    return train_parser(out, assets=assets, renders=PEOPLE * RENDERS, **{"steps": 5, "seed": 0, **other})


@pytest.fixture(scope="module")
def few():
    """Four crops a step, not sixteen: the tests need no good net."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.parsers.train.BATCH", 4)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory, few):
    """A run of the command on renders that are there already, without the default parser's weights."""
    folder = tmp_path_factory.mktemp("parser")
    write_renders(folder / "out")
    given = ["--renders", PEOPLE * RENDERS + 1, "--steps", 20, "--real", write_photos(folder / "real")]
    assert main(["train-parser", "--out", str(folder / "out"), "--assets", str(folder), *map(str, given)]) == 0
    return folder / "out"


def test_a_run_leaves_a_parser_and_a_report(run):
    assert sorted(path.name for path in run.iterdir()) == [
        "config.py", "overlays.png", "parser.pth", "renders", "report.json",
    ]  # fmt: skip
    report = json.loads((run / "report.json").read_text())
    assert (report["renders"], report["held_out"], report["steps"]) == (12, 4, 20)
    assert report["loss"]["last"] < report["loss"]["first"]
    assert report["scores"].keys() == {"renders", "real"}
    for name, number in (("renders", 4), ("real", 2)):
        scores = report["scores"][name]
        assert scores.keys() == {"trained", "ellipse"}
        assert scores["trained"]["crops"] == number
        assert scores["trained"].keys() == {"crops", "pixel_iou", "patch_accuracy", "patch_recall", "patch_precision"}
    picture = cv2.imread(str(run / "overlays.png"))
    assert picture.shape == (4 * 256, 8 * 256, 3)  # two rows for each


def test_the_report_says_what_the_parser_in_the_files_does(run):
    recipe = ParserRecipe(backend="mmseg", config=str(run / "config.py"), checkpoint=str(run / "parser.pth"))
    parser = build_parser(recipe)
    assert parser.name.startswith("mmseg-config-")
    assert "-128-" in parser.name
    photos = read_photos(run.parent / "real")
    scores, _ = judge({"again": parser}, photos, threshold=recipe.threshold)
    assert scores["again"] == json.loads((run / "report.json").read_text())["scores"]["real"]["trained"]


def test_mmseg_itself_takes_config_and_checkpoint(run):
    """Both are mmseg's own formats: its inference gives the parser's mask."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mmseg.apis import inference_model, init_model

        net = init_model(str(run / "config.py"), str(run / "parser.pth"), device="cpu")
        ((rgb, _), *_) = read_photos(run.parent / "real")
        small = np.ascontiguousarray(cv2.resize(rgb, (128, 128), interpolation=cv2.INTER_AREA))
        theirs = inference_model(net, small[..., ::-1].copy()).pred_sem_seg.data[0].numpy() == 1
    assert net.dataset_meta["classes"] == ["background", "person"]
    recipe = ParserRecipe(backend="mmseg", config=str(run / "config.py"), checkpoint=str(run / "parser.pth"))
    (ours,) = build_parser(recipe).parse([small])
    assert (theirs == (ours > 0.5)).mean() > 0.999


def test_the_same_arguments_give_the_same_weights(tmp_path, few):
    for name in ("one", "two", "other"):
        write_renders(tmp_path / name)
        write_renders(tmp_path / name / "more", seed=1)
        for path in (tmp_path / name / "more" / "renders").iterdir():
            path.rename(tmp_path / name / "renders" / path.name)
        trained(tmp_path / name, tmp_path, steps=2, seed=int(name == "other"))
    one, two, other = ((tmp_path / name / "parser.pth").read_bytes() for name in ("one", "two", "other"))
    assert one == two
    assert one != other


def test_training_crops_carry_their_masks():
    """What is bright is the ellipse, wherever it was moved, and whatever stands behind it."""
    rng = np.random.default_rng(0)
    cutouts = [blob(rng) for _ in range(4)]
    fits, shares = [], []
    for _ in range(60):
        crop, mask = draw(cutouts, rng)
        assert crop.shape == (128, 128, 3)
        assert crop.dtype == np.uint8
        assert mask.shape == (128, 128)
        shares.append(mask.mean())
        if 0.05 < mask.mean() < 0.95:
            level = crop.mean(axis=2)
            fits.append(pixel_iou(level > (level[mask].mean() + level[~mask].mean()) / 2, mask))
    assert np.median(fits) > 0.95
    assert 0.1 < np.mean(shares) < 0.5
    assert np.std(shares) > 0.05


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_people_are_rendered_and_found(tmp_path):
    """Some people are enough to do better than one ellipse for all on somebody new."""
    assets = asset("body.npz").parent
    asset("motion")
    report = train_parser(tmp_path, assets=assets, renders=48, steps=100, seed=0)
    assert len(list((tmp_path / "renders").iterdir())) == 48
    scores = report["scores"]["renders"]
    assert scores["trained"]["pixel_iou"] > scores["ellipse"]["pixel_iou"]


def test_two_people_are_rendered_with_their_silhouettes(tmp_path, few):
    assets = asset("body.npz").parent
    asset("motion")
    train_parser(tmp_path, assets=assets, renders=8, steps=1, seed=3)
    images = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted((tmp_path / "renders").iterdir())]
    assert len(images) == 8
    for image in images:
        assert image.shape == (256, 256, 4)
        assert 0.02 < (image[..., 3] == 255).mean() < 0.6
        assert set(np.unique(image[..., 3])) == {0, 255}
    assert len({image.tobytes() for image in images}) == 8


@pytest.mark.parametrize("given", [{"renders": 7}, {"steps": 0}])
def test_too_little_is_refused(tmp_path, given):
    with pytest.raises(TrainingError, match="are too few") as caught:
        train_parser(tmp_path, **{"assets": tmp_path, "renders": 8, "steps": 1, "seed": 0, **given})
    assert "at least 8 renders" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_photos_must_be_as_told(tmp_path):
    with pytest.raises(SourceError, match="no photo of a person") as caught:
        read_photos(tmp_path)
    assert "labels/NAME.png" in caught.value.hint
    photos = write_photos(tmp_path / "photos")
    assert len(read_photos(photos)) == 2
    cv2.imwrite(str(photos / "labels" / "1.png"), np.zeros((9, 9), np.uint8))
    with pytest.raises(SourceError, match=r"the mask is \(9, 9\), its photo \(200, 200"):
        read_photos(photos)
    (photos / "labels" / "1.png").write_bytes(b"no picture")
    with pytest.raises(SourceError, match="does not decode"):
        read_photos(photos)
    (photos / "labels" / "1.png").unlink()
    with pytest.raises(SourceError, match=r"photo 1.jpg has no mask"):
        read_photos(photos)
