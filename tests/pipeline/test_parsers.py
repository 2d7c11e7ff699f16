"""Human parsers: the embedded one, and any segmentor of mmsegmentation."""

import json
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from manifests.errors import RecipeError, StageError
from pipeline.parse import OneParser, assets_folder, build_parser
from pipeline.parsers.mmseg import find_config, load_checkpoint, person_indices
from pipeline.parsers.selfie import EVERYBODY_NET, ONE_NET, resize, spread
from pipeline.recipes import ParserRecipe
from pipeline.squares import cut, square_of
from tests.support.samples import asset, sample

CONFIG = "fast_scnn_8xb4-160k_cityscapes-512x1024"


def pictures(*shapes):
    rng = np.random.default_rng(0)
    return [
        cv2.resize(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
        for height, width in shapes
    ]


def assert_batch_equals_single(parser, crops, *, tolerance=1e-5):
    together = parser.parse(crops)
    for crop, found in zip(crops, together, strict=True):
        (alone,) = parser.parse([crop])
        assert found.shape == crop.shape[:2]
        assert found.dtype == np.float32
        assert 0 <= found.min() <= found.max() <= 1
        assert np.abs(found - alone).max() <= tolerance


@pytest.fixture(scope="module")
def selfie():
    asset(ONE_NET[0])
    return build_parser(ParserRecipe(), asset(EVERYBODY_NET[0]).parents[1])


def test_no_parser_is_built_for_none():
    assert build_parser(ParserRecipe(backend="none")) is None


def test_assets_are_looked_for_where_told(monkeypatch, tmp_path):
    monkeypatch.delenv("CROSSPOSE_ASSETS", raising=False)
    assert assets_folder() == Path("assets")
    monkeypatch.setenv("CROSSPOSE_ASSETS", str(tmp_path))
    assert assets_folder() == tmp_path
    assert assets_folder("elsewhere") == Path("elsewhere")


def test_absent_weights_say_how_to_get_them(tmp_path):
    with pytest.raises(StageError, match="cannot be read: No such file") as caught:
        build_parser(ParserRecipe(), tmp_path)
    assert caught.value.where == str(tmp_path / EVERYBODY_NET[0])
    assert "make fetch" in caught.value.hint


@pytest.mark.parametrize("net", [EVERYBODY_NET, ONE_NET])
def test_other_weights_are_refused(tmp_path, net):
    file, digest = net
    (tmp_path / file).parent.mkdir()
    for other, _ in {EVERYBODY_NET, ONE_NET} - {net}:
        (tmp_path / other).write_bytes(asset(other).read_bytes())
    (tmp_path / file).write_bytes(b"other weights")
    with pytest.raises(StageError, match=rf"not {digest[:12]}") as caught:
        build_parser(ParserRecipe(), tmp_path)
    assert caught.value.where == str(tmp_path / file)
    assert caught.value.hint.startswith("delete the file and fetch it with `make fetch`")


def test_selfie_is_named_by_its_weights(selfie):
    assert selfie.name == f"selfie-{EVERYBODY_NET[1][:12]}-pose-{ONE_NET[1][:12]}"
    assert isinstance(selfie, OneParser)


def test_one_person_batch_equals_single(selfie):
    crops = pictures((256, 256), (100, 180), (300, 180))
    together = selfie.parse_one(crops)
    for crop, (found, sure) in zip(crops, together, strict=True):
        ((alone, alone_sure),) = selfie.parse_one([crop])
        assert found.shape == crop.shape[:2]
        assert found.dtype == np.float32
        assert 0 <= found.min() <= found.max() <= 1
        assert np.abs(found - alone).max() <= 1e-3
        assert sure == pytest.approx(alone_sure, abs=1e-3)
    assert selfie.parse_one([]) == []


def test_nobody_is_in_coloured_noise(selfie):
    assert all(sure < 0.5 for _, sure in selfie.parse_one(pictures((256, 256), (200, 300), (64, 64))))


def test_selfie_batch_equals_single(selfie):
    crops = pictures((256, 256), (100, 100), (300, 180), *[(64, 64)] * 15)  # more than one batch
    assert_batch_equals_single(selfie, crops)
    assert selfie.parse([]) == []


def large_people(*, least_px=150):
    """Photos of COCO with people's boxes and polygons: (image, box, mask) of those not crowded and large."""
    folder = sample("open-mmlab+mmpose/tests/data/coco")
    data = json.loads((folder / "test_coco.json").read_text())
    names = {image["id"]: image["file_name"] for image in data["images"]}
    for note in data["annotations"]:
        x, y, width, height = note["bbox"]
        if note["iscrowd"] or max(width, height) < least_px:
            continue
        image = cv2.imread(str(folder / names[note["image_id"]]))[..., ::-1]
        mask = np.zeros(image.shape[:2], np.uint8)
        cv2.fillPoly(
            mask, [np.array(p, float).reshape(-1, 2).round().astype(np.int32) for p in note["segmentation"]], 1
        )
        yield image, np.array([x, y, x + width, y + height]) - 0.5, mask


def test_selfie_finds_large_people_in_real_photos(selfie):
    scores = []
    for image, box, mask in large_people():
        square = square_of(box, margin=1.25)
        (found,) = selfie.parse([cut(image, square, 256)])
        exact = cut(mask * 255, square, 256) > 127
        person = found > ParserRecipe().threshold
        scores.append((person & exact).sum() / (person | exact).sum())
    # Measured: ten people, mean .69, from .23 to .91.
    assert max(scores) > 0.8
    assert len(scores) == 10
    assert np.mean(scores) > 0.6


def test_one_person_is_told_from_the_neighbours_in_real_photos(selfie):
    """People drawn by hand, their own pixels only: the mask of one person fits better than that of everybody."""
    scores = {"one": [], "everybody": []}
    for image, box, mask in large_people():
        square = square_of(box, margin=1.3)
        crop = cut(image, square, 256)
        exact = cut(mask * 255, square, 256) > 127
        for name, found in (("one", selfie.parse_one([crop])[0][0]), ("everybody", selfie.parse([crop])[0])):
            person = found > ParserRecipe().threshold
            scores[name].append((person & exact).sum() / (person | exact).sum())
    # Measured: means .72 and .69.
    assert np.mean(scores["one"]) > 0.65
    assert np.mean(scores["one"]) > np.mean(scores["everybody"])


@pytest.mark.parametrize("shape", [(256, 256), (100, 300), (301, 77)])
def test_maps_come_back_in_the_size_of_the_crop(shape):
    (crop,) = pictures(shape)
    assert resize(crop, 64).shape == (64, 64, 3)
    ramp = np.linspace(-0.5, 1.5, 64 * 64, dtype=np.float32).reshape(64, 64)
    out = spread(ramp, shape)
    assert out.shape == shape
    assert (out.min(), out.max()) == (0, 1)


@pytest.fixture(scope="module")
def net():
    """The state dict of a small net with random weights, made by mmseg itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mmseg.models  # noqa: F401
        from mmengine.config import Config
        from mmengine.registry import DefaultScope
        from mmseg.registry import MODELS

        config = Config.fromfile(str(find_config(CONFIG)))
        text = json.dumps(config.model.to_dict()).replace('"SyncBN"', '"BN"')
        torch.manual_seed(0)
        torch.set_num_threads(1)
        with DefaultScope.overwrite_default_scope("mmseg"):
            return MODELS.build(Config({"model": json.loads(text)}).model).state_dict()


def mmseg_recipe(checkpoint, **other):
    return ParserRecipe(backend="mmseg", config=CONFIG, checkpoint=str(checkpoint), input_px=64, **other)


def saved(path, content):
    torch.save(content, path)
    return path


def test_mmseg_looks_up_who_is_a_person(net, tmp_path):
    """Of the classes of Cityscapes person and rider are people: their probabilities add up."""
    path = saved(tmp_path / "net.pth", net)
    crops = pictures((64, 64), (90, 120))
    looked_up = build_parser(mmseg_recipe(path)).parse(crops)
    person, rider = (build_parser(mmseg_recipe(path, person_classes=(c,))).parse(crops) for c in ("person", 12))
    everything = build_parser(mmseg_recipe(path, person_classes=tuple(range(19)))).parse(crops)
    for found, one, other, every in zip(looked_up, person, rider, everything, strict=True):
        assert found.std() > 0
        assert np.allclose(found, one + other, atol=1e-5)
        assert np.allclose(every, 1, atol=1e-5)


def test_mmseg_batch_equals_single_and_is_named_by_its_weights(net, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.parsers.mmseg.BATCH", 2)
    path = saved(tmp_path / "net.pth", {"state_dict": {f"module.{key}": value for key, value in net.items()}})
    parser = build_parser(mmseg_recipe(path))
    assert_batch_equals_single(parser, pictures((64, 64), (80, 50), (40, 40)))
    assert parser.name == f"mmseg-{CONFIG}-64-{load_checkpoint(str(path))[2][:12]}"


def test_mmseg_takes_class_names_from_the_checkpoint(net, tmp_path):
    names = [f"thing{i}" for i in range(18)] + ["human"]
    meta = {"dataset_meta": {"classes": names}}
    path = saved(tmp_path / "net.pth", {"state_dict": net, "meta": meta})
    crops = pictures((64, 64))
    by_name = build_parser(mmseg_recipe(path)).parse(crops)
    by_index = build_parser(mmseg_recipe(path, person_classes=(18,))).parse(crops)
    assert (by_name[0] == by_index[0]).all()


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "it ran")


def test_mmseg_never_runs_what_a_checkpoint_says(net, tmp_path):
    marker = tmp_path / "marker"
    path = saved(tmp_path / "net.pth", {"state_dict": net, "meta": Bomb(marker)})
    with pytest.raises(StageError, match="more than plain tensors") as caught:
        build_parser(mmseg_recipe(path))
    assert not marker.exists()
    assert "weights_only=False" in caught.value.hint
    torch.load(path, weights_only=False)
    assert marker.exists(), "the bomb is no bomb"


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", b"\x80\x02."])
def test_mmseg_refuses_damaged_checkpoints(tmp_path, content):
    (tmp_path / "net.pth").write_bytes(content)
    with pytest.raises(StageError, match="more than plain tensors, or damaged"):
        load_checkpoint(str(tmp_path / "net.pth"))


@pytest.mark.parametrize("content", [{}, {"state_dict": {"a": 1}}, torch.zeros(2), [torch.zeros(2)]])
def test_mmseg_refuses_what_is_no_state_dict(tmp_path, content):
    with pytest.raises(StageError, match="holds no state dict"):
        load_checkpoint(str(saved(tmp_path / "net.pth", content)))


@pytest.mark.parametrize("path", [None, "https://example.org/net.pth", "nowhere/net.pth"])
def test_mmseg_needs_a_checkpoint_on_disk(path):
    with pytest.raises(StageError, match="needs a checkpoint on disk"):
        load_checkpoint(path)


def test_mmseg_refuses_weights_of_another_net(net, tmp_path):
    path = saved(tmp_path / "less.pth", {k: v for k, v in net.items() if "decode_head.conv_seg" not in k})
    with pytest.raises(StageError, match="another net: 2 weights missing"):
        build_parser(mmseg_recipe(path))
    wrong = {key: torch.zeros(7) if value.ndim else value for key, value in net.items()}
    with pytest.raises(StageError, match="belongs to another net"):
        build_parser(mmseg_recipe(saved(tmp_path / "wrong.pth", wrong)))


def test_unknown_and_broken_configs_are_recipe_errors(tmp_path):
    with pytest.raises(RecipeError, match="no such mmseg config"):
        build_parser(ParserRecipe(backend="mmseg", config="no_such_net"))
    (tmp_path / "broken.py").write_text("model = (")
    with pytest.raises(RecipeError, match="does not load"):
        build_parser(ParserRecipe(backend="mmseg", config=str(tmp_path / "broken.py")))
    (tmp_path / "empty.py").write_text("something = 1")
    with pytest.raises(RecipeError, match="has no `model`"):
        build_parser(ParserRecipe(backend="mmseg", config=str(tmp_path / "empty.py")))


def test_person_classes_are_checked():
    names = ["road", "Person", "rider"]
    known = {"num_classes": 3, "where": "net"}
    assert person_indices((), names, **known) == [1, 2]
    assert person_indices(("rider", 0, 0), names, **known) == [0, 2]
    assert person_indices((2,), None, **known) == [2]
    for wanted in (("cat",), (3,), (-1,)):
        with pytest.raises(RecipeError, match="is no class of this net"):
            person_indices(wanted, names, **known)
    for unknown in (None, ["road", "sky", "car"]):
        with pytest.raises(RecipeError, match="no class of this net is known to be a person"):
            person_indices((), unknown, **known)
