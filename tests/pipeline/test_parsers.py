"""Human parsers: the embedded one, and any segmentor of mmsegmentation."""

import json
import re
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from manifests.doors import door
from manifests.errors import RecipeError, StageError
from pipeline.__main__ import main
from pipeline.parse import OneParser, assets_folder, build_parser
from pipeline.parsers.label_maps import LABEL_MAPS
from pipeline.parsers.mmseg import build_net, find_config, load_checkpoint, person_indices, read_config
from pipeline.parsers.quality import centre_ellipse, patch_scores, patches_of, pixel_iou
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


@pytest.fixture(scope="module")
def litert():
    pytest.importorskip("ai_edge_litert")
    asset(ONE_NET[0])
    return build_parser(ParserRecipe(engine="litert"), asset(EVERYBODY_NET[0]).parents[1])


def test_litert_sees_what_opencv_sees(selfie, litert):
    people = [cut(image, square_of(box, margin=1.25), 256) for image, box, _ in large_people()]
    crops = people + pictures((256, 256), (100, 180))
    for one, other in zip(selfie.parse(crops), litert.parse(crops), strict=True):
        assert np.abs(one - other).max() < 1e-3  # measured: 1e-4
        assert one.shape == other.shape
    for (one, sure), (other, other_sure) in zip(selfie.parse_one(crops), litert.parse_one(crops), strict=True):
        assert np.abs(one - other).max() < 5e-3  # measured: 3e-3 at the outline
        assert np.abs(one - other).mean() < 1e-4
        assert abs(sure - other_sure) < 1e-3
    assert_batch_equals_single(litert, crops[:3])
    assert litert.parse([]) == litert.parse_one([]) == []


def test_an_engine_is_part_of_the_parsers_name(selfie, litert):
    assert litert.name == selfie.name.replace("selfie-", "selfie-litert-")


def test_an_absent_engine_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(StageError, match="LiteRT is not installed") as caught:
        build_parser(ParserRecipe(engine="litert"), asset(EVERYBODY_NET[0]).parents[1])
    assert "pip install ai-edge-litert" in caught.value.hint


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
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return build_net(read_config(find_config(CONFIG)), CONFIG).state_dict()


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
        # Of several classes the odds are enlarged, not each class: between two cells a sum differs a little.
        assert np.allclose(found, one + other, atol=2e-3)
        assert np.allclose(every, 1, atol=1e-5)


def test_mmseg_batch_equals_single_and_is_named_by_its_weights(net, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.parsers.mmseg.BATCH", 2)
    path = saved(tmp_path / "net.pth", {"state_dict": {f"module.{key}": value for key, value in net.items()}})
    parser = build_parser(mmseg_recipe(path))
    assert_batch_equals_single(parser, pictures((64, 64), (80, 50), (40, 40)))
    assert re.fullmatch(f"mmseg-{CONFIG}-[0-9a-f]{{6}}-64-{load_checkpoint(str(path))[2][:12]}", parser.name)


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
    assert caught.value.what.endswith("Unsupported global: GLOBAL getattr")
    assert door("pipeline", "convert-checkpoint", path) in caught.value.hint
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


def mmseg_itself(state, crops):
    """Softmax over the classes as mmseg computes it: every class enlarged, nothing folded; (B, 19, 64, 64)."""
    config = read_config(find_config(CONFIG))
    whole = build_net(config, CONFIG).eval()
    whole.load_state_dict(state)
    prepare = config.model.data_preprocessor
    images = (np.stack([resize(crop, 64) for crop in crops]) - np.array(prepare.mean)) / np.array(prepare.std)
    inputs = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))
    with torch.inference_mode():
        return whole.encode_decode(inputs, [{"img_shape": (64, 64)}] * len(crops)).softmax(dim=1).numpy()


def settled(net):
    """The weights with batch statistics that are not those of a new net, so that folding them matters."""
    generator = torch.Generator().manual_seed(0)
    return {
        key: value + torch.rand(value.shape, generator=generator) if "running_" in key else value
        for key, value in net.items()
    }


def test_mmseg_says_what_the_net_says(net, tmp_path):
    state, crops = settled(net), pictures((64, 64), (90, 120))
    path = saved(tmp_path / "net.pth", state)
    expected = mmseg_itself(state, crops)
    assert expected.std() > 1e-3
    for classes in ((11, 12), (0,), tuple(range(7))):
        found = build_parser(mmseg_recipe(path, person_classes=classes)).parse(crops)
        assert np.abs(found[0] - expected[0, list(classes)].sum(axis=0)).max() < 2e-3
        assert found[1].shape == (90, 120)


def test_mmseg_in_half_precision_agrees_nearly(net, tmp_path):
    path, crops = saved(tmp_path / "net.pth", settled(net)), pictures((64, 64), (90, 120))
    parser, half = (build_parser(mmseg_recipe(path, precision=p)) for p in ("fp32", "bf16"))
    for found, exact in zip(half.parse(crops), parser.parse(crops), strict=True):
        assert found.dtype == np.float32
        assert 0 < np.abs(found - exact).max() < 0.02
    assert half.name == f"{parser.name}-bf16"


@pytest.mark.gpu
def test_mmseg_on_a_gpu_agrees_nearly(net, tmp_path):
    path, crops = saved(tmp_path / "net.pth", settled(net)), pictures((64, 64), (90, 120), *[(64, 64)] * 8)
    exact = build_parser(mmseg_recipe(path)).parse(crops)
    for precision, tolerance in (("fp32", 2e-3), ("fp16", 0.01), ("bf16", 0.03)):
        parser = build_parser(mmseg_recipe(path, precision=precision), device="cuda")
        for found, expected in zip(parser.parse(crops), exact, strict=True):
            assert np.abs(found - expected).max() < tolerance


def test_a_net_that_gives_no_numbers_is_not_taken_for_an_empty_picture(net, tmp_path):
    broken = net | {"decode_head.conv_seg.bias": torch.full((19,), torch.nan)}
    parser = build_parser(mmseg_recipe(saved(tmp_path / "net.pth", broken)))
    with pytest.raises(StageError, match="output is not a number") as caught:
        parser.parse(pictures((64, 64)))
    assert "precision fp32" in caught.value.hint


def test_mmseg_loads_with_and_without_auxiliary_heads(net, tmp_path):
    """They help training only: a checkpoint may hold them or not."""
    assert not any("auxiliary" in key for key in net)
    plain = build_parser(mmseg_recipe(saved(tmp_path / "plain.pth", net)))
    more = net | {"auxiliary_head.0.conv_seg.weight": torch.ones(19, 32, 1, 1), "auxiliary_head.1.x": torch.ones(1)}
    helped = build_parser(mmseg_recipe(saved(tmp_path / "more.pth", more)))
    crops = pictures((64, 64))
    assert (plain.parse(crops)[0] == helped.parse(crops)[0]).all()
    with pytest.raises(StageError, match=r"1 unknown \['neck.weight'\]"):
        build_parser(mmseg_recipe(saved(tmp_path / "neck.pth", net | {"neck.weight": torch.ones(1)})))


def test_mmseg_reads_safetensors(net, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    classes = ["someone", *[f"thing{i}" for i in range(18)]]
    state = {key: value.contiguous() for key, value in net.items()}
    safetensors.save_file(state, tmp_path / "net.safetensors", metadata={"classes": json.dumps(classes)})
    crops = pictures((64, 64))
    found = build_parser(mmseg_recipe(tmp_path / "net.safetensors", person_classes=("someone",))).parse(crops)
    expected = build_parser(mmseg_recipe(saved(tmp_path / "net.pth", net), person_classes=(0,))).parse(crops)
    assert (found[0] == expected[0]).all()
    (tmp_path / "bad.safetensors").write_bytes(b"no safetensors")
    with pytest.raises(StageError, match="more than plain tensors, or damaged"):
        load_checkpoint(str(tmp_path / "bad.safetensors"))


def convert(*arguments):
    return main(["convert-checkpoint", *map(str, arguments)])


def test_a_checkpoint_is_unpickled_only_when_trusted(net, tmp_path, capsys):
    marker = tmp_path / "marker"
    content = {"state_dict": net, "meta": {"CLASSES": ("road", "person")}, "optimizer": Bomb(marker)}
    source, target = saved(tmp_path / "net.pth", content), tmp_path / "plain" / "net.pth"
    assert convert(source, target) == 2
    told = capsys.readouterr().err
    assert "run whatever code the file's author put into it" in told
    assert "--i-trust-this-file" in told
    assert not marker.exists()
    assert not target.parent.exists()

    assert convert(source, target, "--i-trust-this-file") == 0
    assert marker.exists(), "the bomb is no bomb"
    state, meta, _ = load_checkpoint(str(target))
    assert meta == {"dataset_meta": {"classes": ["road", "person"]}}
    assert state.keys() == net.keys()
    assert all((state[key] == net[key]).all() for key in net)
    assert [path.name for path in target.parent.iterdir()] == ["net.pth"]


def test_a_plain_checkpoint_needs_no_trust_to_become_lean(net, tmp_path):
    source = saved(tmp_path / "net.pth", {"state_dict": net, "optimizer": {"step": torch.zeros(9)}})
    assert convert(source, tmp_path / "lean.pth") == 0
    assert load_checkpoint(str(tmp_path / "lean.pth"))[1] == {"dataset_meta": {"classes": None}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "needs a checkpoint on disk"),
        (b"damaged", "does not load: UnpicklingError"),
        ([1], "holds no state dict"),
    ],
)
def test_what_cannot_be_converted_is_told(tmp_path, capsys, content, message):
    source = tmp_path / "net.pth"
    if isinstance(content, bytes):
        source.write_bytes(content)
    elif content is not None:
        saved(source, content)
    assert convert(source, tmp_path / "new.pth", "--i-trust-this-file") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new.pth").exists()


def test_a_conversion_is_refused_where_it_cannot_be_written(net, tmp_path, capsys):
    source = saved(tmp_path / "net.pth", net)
    assert convert(source, source) == 2
    assert "source and target are one file" in capsys.readouterr().err
    (tmp_path / "file").write_text("no folder")
    assert convert(source, tmp_path / "file" / "net.pth") == 2
    assert "cannot be written" in capsys.readouterr().err


# Of the label sets that mmseg ships, with the names that are people.
SHIPPED = {
    "ade20k": ("ADE20KDataset", {"person"}),
    "cityscapes": ("CityscapesDataset", {"person", "rider"}),
    "coco_stuff": ("COCOStuffDataset", {"person"}),
    "mapillary_v1": ("MapillaryDataset_v1", {"Person", "Bicyclist", "Motorcyclist", "Other Rider"}),
    "mapillary_v2": (
        "MapillaryDataset_v2",
        {"Person", "Person Group", "Bicyclist", "Motorcyclist", "Other Rider"},
    ),
    "pascal_context_59": ("PascalContextDataset59", {"person"}),
    "pascal_context_60": ("PascalContextDataset", {"person"}),
    "voc": ("PascalVOCDataset", {"person"}),
}


@pytest.mark.parametrize("labels", SHIPPED)
def test_label_maps_are_those_of_mmseg(labels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mmseg.datasets as shipped
    name, people = SHIPPED[labels]
    classes = getattr(shipped, name).METAINFO["classes"]
    known = LABEL_MAPS[labels]
    assert known.num_classes == len(classes)
    assert {classes[index] for index in known.people} == people
    assert len(known.people) == len(people)


def test_label_maps_of_parts_leave_out_the_background():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mmseg.datasets import LIPDataset
    assert LABEL_MAPS["lip"] == LABEL_MAPS["cihp"] == (len(LIPDataset.METAINFO["classes"]), tuple(range(1, 20)))
    for labels in LABEL_MAPS.keys() - SHIPPED.keys():
        known = LABEL_MAPS[labels]
        assert 0 not in known.people
        assert max(known.people) == known.num_classes - 1
    assert LABEL_MAPS["coco_stuff"].people == (0,)
    assert {16} == set(range(1, 18)) - set(LABEL_MAPS["atr"].people)
    assert {8} == set(range(1, 18)) - set(LABEL_MAPS["fashn"].people)


def test_a_label_set_says_who_is_a_person(net, tmp_path):
    path, crops = saved(tmp_path / "net.pth", net), pictures((64, 64))
    by_labels = build_parser(mmseg_recipe(path, labels="cityscapes")).parse(crops)
    assert (by_labels[0] == build_parser(mmseg_recipe(path)).parse(crops)[0]).all()
    given = build_parser(mmseg_recipe(path, labels="cityscapes", person_classes=(0,))).parse(crops)
    assert (given[0] != by_labels[0]).any()
    with pytest.raises(RecipeError, match="'lip' has 20 classes, this net 19") as caught:
        build_parser(mmseg_recipe(path, labels="lip"))
    assert "cityscapes, coco_stuff" in caught.value.hint
    with pytest.raises(ValueError, match=r"'lips' is no known label set; known: ade20k, .*lip"):
        ParserRecipe(labels="lips")


def test_masks_are_compared_by_pixels_and_by_patches():
    truth = np.zeros((224, 224), bool)
    truth[:64, :32] = True  # 4 x 2 patches
    mask = np.zeros((224, 224), bool)
    mask[:32, :64] = True  # 2 x 4, of which 2 x 2 are the same
    assert pixel_iou(mask, truth) == pytest.approx(4 / 12)
    assert patch_scores(mask, truth) == pytest.approx((1 - 8 / 196, 0.5, 0.5))
    nobody = np.zeros_like(truth)
    assert pixel_iou(nobody, nobody) == 1
    assert patch_scores(nobody, truth) == pytest.approx((1 - 8 / 196, 0, 1))
    assert patch_scores(mask, nobody).recall == 1
    with pytest.raises(ValueError, match="of one shape"):
        pixel_iou(mask, truth[:100])
    with pytest.raises(ValueError, match="do not tile"):
        patch_scores(mask, truth, patch_px=15)


def test_a_patch_is_a_persons_from_a_share_of_its_area():
    mask = np.zeros((448, 448), bool)  # patches of 32 px before it shrinks
    mask[:32, :8] = True
    mask[:32, 32:39] = True
    assert patches_of(mask).sum() == 1
    assert patches_of(mask, share=0.2).sum() == 2
    assert patches_of(mask, patch_px=8, size=112).shape == (14, 14)


def test_the_floor_is_an_ellipse_in_the_middle():
    ellipse = centre_ellipse(100)
    assert (ellipse == ellipse[::-1, ::-1]).all()
    assert np.flatnonzero(ellipse.any(axis=1))[[0, -1]].tolist() == [10, 89]
    assert np.flatnonzero(ellipse.any(axis=0))[[0, -1]].tolist() == [30, 69]


def test_person_classes_are_checked():
    names = ["road", "Person", "rider"]
    known = {"num_classes": 3, "where": "net"}
    assert person_indices((), names, **known) == [1, 2]
    assert person_indices(("rider", 0, 0), names, **known) == [0, 2]
    assert person_indices((2,), None, **known) == [2]
    for wanted in (("cat",), (3,), (-1,)):
        with pytest.raises(RecipeError, match="is no class of this net"):
            person_indices(wanted, names, **known)
    assert person_indices((1,), ["road"], **known) == [1]
    for wanted in ((), ("road",)):
        with pytest.raises(RecipeError, match="1 class names are known, but this net has 3 classes"):
            person_indices(wanted, ["road"], **known)
    for unknown in (None, ["road", "sky", "car"]):
        with pytest.raises(RecipeError, match="no class of this net is known to be a person"):
            person_indices((), unknown, **known)
