import argparse
import json
import os
import pickle
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch import distributed as dist

from manifests.errors import TrainingError
from training import checkpoints
from training.checkpoints import (
    PLACE,
    Checkpoint,
    Place,
    architecture_of,
    export_safetensors,
    list_checkpoints,
    load_shares,
    load_weights,
    read_checkpoint,
    read_place,
    save_checkpoint,
    save_shares,
    shares_of,
    write_atomic,
)
from training.model.croco import Architecture, CroCo
from training.model.mae import MAE
from training.model.positions import cosine_positions

SIZE = Architecture(image_px=32, patch_px=8, enc_dim=32, enc_depth=1, enc_heads=2, dec_dim=16, dec_depth=1, dec_heads=2)


def example(step=7):
    model = CroCo(SIZE)
    optimizer = torch.optim.AdamW(model.parameters())
    model.mask_token.grad = torch.ones_like(model.mask_token)
    optimizer.step()
    return Checkpoint(
        model=model.state_dict(),
        head={},
        optimizer=optimizer.state_dict(),
        step=step,
        position=step * 32,
        shards="abc",
        recipe={"name": "demo", "betas": [0.9, 0.95], "nested": {"flag": True, "nothing": None}},
        init=None,
        usual_norm=0.5,
    )


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other


def test_round_trip(tmp_path):
    checkpoint = example()
    again = read_checkpoint(save_checkpoint(tmp_path, checkpoint, keep=2))
    for field in fields(Checkpoint):
        assert same(getattr(checkpoint, field.name), getattr(again, field.name)), field.name


def test_only_the_last_ones_stay_in_the_order_of_steps(tmp_path):
    for step in (1, 2, 10, 9_999_999, 123_456_789):
        save_checkpoint(tmp_path, example(step), keep=3)
    assert [path.name for path in list_checkpoints(tmp_path)] == [
        "step-00000010.pt",
        "step-09999999.pt",
        "step-123456789.pt",
    ]


def test_a_killed_write_leaves_the_old_state(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, example(1), keep=1)

    def killed(_descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "_sync", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, example(2), keep=1)
    assert [read_checkpoint(path).step for path in list_checkpoints(tmp_path)] == [1]


def test_a_full_disk_is_told_and_leaves_the_old_state(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, example(1), keep=1)
    write_atomic(tmp_path / "note", b"old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "_sync", full)
    with pytest.raises(TrainingError, match=r"No space left on device(.|\n)*step-00000002.pt(.|\n)*free some space"):
        save_checkpoint(tmp_path, example(2), keep=1)
    with pytest.raises(TrainingError, match="No space left"):
        write_atomic(tmp_path / "note", b"new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["note", "step-00000001.pt"]
    assert (tmp_path / "note").read_bytes() == b"old"


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_file_cut_short_is_told(tmp_path, share):
    path = save_checkpoint(tmp_path, example(), keep=1)
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(TrainingError, match=r"cannot be read as a checkpoint(.|\n)*step-00000007.pt(.|\n)*damaged"):
        read_checkpoint(path)


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_file_that_would_run_code_is_refused_and_does_not_run_it(tmp_path):
    sprung, path = tmp_path / "sprung", tmp_path / "evil.pt"
    torch.save({"model": Trap(sprung)}, path)
    refused = r"holds an object of getattr(.|\n)*evil.pt(.|\n)*save its weights alone"
    with pytest.raises(TrainingError, match=refused):
        read_checkpoint(path)
    path.write_bytes(pickle.dumps({"model": Trap(sprung)}, protocol=2))
    with pytest.raises(TrainingError, match=refused):
        load_weights(CroCo(SIZE), path)
    assert not sprung.exists()


def test_other_files_are_no_checkpoints(tmp_path):
    with pytest.raises(TrainingError, match="no such file"):
        read_checkpoint(tmp_path / "absent.pt")
    torch.save({"model": {}}, tmp_path / "other.pt")
    with pytest.raises(TrainingError, match="no checkpoint of a crosspose run"):
        read_checkpoint(tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(TrainingError, match="holds no checkpoint"):
        read_checkpoint(tmp_path / "list.pt")
    torch.save({"weights": {}}, tmp_path / "none.pt")
    with pytest.raises(TrainingError, match="no weights under `model`"):
        load_weights(CroCo(SIZE), tmp_path / "none.pt")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello world",
        b"\xff\xd8\xff\xe0 a picture",
        b"\x80\x02abc",
        b"\x80\x02M",
        b"PK\x03\x04 a zip",
        pickle.dumps({}),
    ],
    ids=["empty", "text", "picture", "pickle", "cut pickle", "zip", "pickle 4"],
)
def test_a_file_of_anything_is_told_without_advice_to_run_it(tmp_path, content):
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(TrainingError, match="cannot be read as a checkpoint: ") as caught:
        load_weights(CroCo(SIZE), tmp_path / "weights.pth")
    assert "weights_only" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 3


@pytest.fixture
def alone():
    """A group of one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def save_example(folder, step, keep=2):
    """Save an example in shares; returns it and its path."""
    checkpoint = example(step)
    names = [f"model.{name}" for name, _ in CroCo(SIZE).named_parameters()]
    moments = {names[number]: kinds for number, kinds in checkpoint.optimizer["state"].items()}
    state = {f"model.{name}": value for name, value in checkpoint.model.items()}
    place = Place(**{field.name: getattr(checkpoint, field.name) for field in fields(Place)})
    path = save_shares(folder, place, shares_of(state, {"state": moments}), keep=keep)
    return replace(checkpoint, optimizer={"state": moments}), path


def test_shares_are_put_together_again(tmp_path, alone):
    checkpoint, path = save_example(tmp_path, 7)
    again = read_checkpoint(path)
    for field in fields(Checkpoint):
        assert same(getattr(checkpoint, field.name), getattr(again, field.name)), field.name
    assert not isinstance(read_place(path), Checkpoint)
    shares = {"model.mask_token": torch.zeros_like(checkpoint.model["mask_token"])}
    load_shares(path, shares)
    assert torch.equal(shares["model.mask_token"], checkpoint.model["mask_token"])


def test_shares_and_single_files_take_turns(tmp_path, alone):
    save_example(tmp_path, 1)
    save_checkpoint(tmp_path, example(2), keep=2)
    (tmp_path / ".step-00000003.tmp").mkdir()  # of a killed process
    (tmp_path / ".step-00000003.tmp/left.safetensors").touch()
    save_example(tmp_path, 3)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000002.pt", "step-00000003"]
    save_checkpoint(tmp_path, example(4), keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000004.pt"]


@pytest.mark.parametrize("damage", ["cut", "gone", "no place", "other place", "garbage"])
def test_damaged_shares_are_told(tmp_path, alone, damage):
    _, path = save_example(tmp_path, 7)
    (share,) = path.glob("*.safetensors")
    size = share.stat().st_size
    if damage == "cut":
        os.truncate(share, size - 1)
    elif damage == "gone":
        share.unlink()
    elif damage == "garbage":
        share.write_bytes(b"\xff" * size)
    elif damage == "no place":
        (path / PLACE).unlink()
    else:
        (path / PLACE).write_text(json.dumps({"format": 99, "files": {}}))
    hint = r"cannot be read(.|\n)*step-00000007(.|\n)*from the one before"
    for read in (read_checkpoint, lambda path: load_shares(path, {"model.mask_token": torch.zeros(1, 1, 16)})):
        with pytest.raises(TrainingError, match=hint):
            read(path)


def test_shares_of_another_network_are_told(tmp_path, alone):
    _, path = save_example(tmp_path, 7)
    for name, size in (("model.absent", (3,)), ("model.mask_token", (1, 1, 17))):
        with pytest.raises(TrainingError, match="cannot be read"):
            load_shares(path, {name: torch.zeros(size)})


def test_shares_on_a_full_disk_leave_the_old_state(tmp_path, alone, monkeypatch):
    save_example(tmp_path, 1, keep=1)

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainingError, match=r"cannot write(.|\n)*step-00000002(.|\n)*free some space"):
        save_example(tmp_path, 2, keep=1)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000001"]


PUBLIC = {
    "enc_embed_dim": 32,
    "enc_depth": 1,
    "enc_num_heads": 2,
    "dec_embed_dim": 16,
    "dec_depth": 1,
    "dec_num_heads": 2,
}


@pytest.mark.parametrize("form", ["plain", "kwargs", "args", "own", "safetensors"])
def test_weights_load_from_every_public_form(tmp_path, form):
    torch.manual_seed(1)
    trained, path = CroCo(SIZE), tmp_path / "weights.pth"
    state = trained.state_dict()
    if form == "plain":
        torch.save({"model": state}, path)
    elif form == "kwargs":
        torch.save({"model": state, "croco_kwargs": {**PUBLIC, "pos_embed": "cosine", "mlp_ratio": 4}}, path)
    elif form == "args":
        call = f"CroCoNet({', '.join(f'{key}={value!r}' for key, value in PUBLIC.items())})"
        torch.save({"model": state, "args": argparse.Namespace(model=call, blr=1e-4), "epoch": 3}, path)
    elif form == "own":
        path = save_checkpoint(tmp_path, replace(example(), model=state), keep=1)
    else:
        path = tmp_path / "weights.safetensors"
        export_safetensors(trained, path)
    torch.manual_seed(2)
    model = CroCo(SIZE)
    assert not same(model.state_dict(), state)
    sha256 = load_weights(model, path)
    assert same(model.state_dict(), state)
    assert sha256 == checkpoints.file_sha256(path)


def test_weights_of_another_grid_are_stretched(tmp_path):
    torch.save({"model": CroCo(SIZE).state_dict()}, tmp_path / "weights.pth")
    larger = CroCo(replace(SIZE, image_px=64))
    load_weights(larger, tmp_path / "weights.pth")
    assert larger.enc_pos_embed.shape == (64, 32)
    assert not torch.equal(larger.enc_pos_embed, cosine_positions(8, 32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": "rope"}, "trained with cosine positions, the recipe asks for rope"),
        ({"dec_depth": 2}, r"dec_blocks.1.norm1.weight is missing(.|\n)* and \d+ more"),
        ({"enc_dim": 64}, r"enc_pos_embed is \(16, 32\), not \(16, 64\)"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, change, message):
    torch.save({"model": CroCo(SIZE).state_dict()}, tmp_path / "weights.pth")
    model = CroCo(replace(SIZE, **change))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(TrainingError, match=message):
        load_weights(model, tmp_path / "weights.pth")
    assert same(model.state_dict(), before)


def test_a_stated_size_is_held_against_the_recipe(tmp_path):
    torch.save(
        {"model": CroCo(SIZE).state_dict(), "croco_kwargs": {**PUBLIC, "enc_depth": 12}}, tmp_path / "weights.pth"
    )
    with pytest.raises(TrainingError, match="of another network: enc_depth 12, not 1"):
        load_weights(CroCo(SIZE), tmp_path / "weights.pth")


def test_settings_written_as_text_are_read_not_run(tmp_path):
    text = "CroCoNet(enc_embed_dim=1024, enc_depth=24, img_size=224, pos_embed='RoPE100', norm_im2_in_dec=True)"
    wanted = {"enc_dim": 1024, "enc_depth": 24, "image_px": 224, "positions": "rope"}
    assert architecture_of({"args": argparse.Namespace(model=text)}) == wanted
    assert architecture_of({"model": {}}) == {}
    sprung = tmp_path / "sprung"
    evil = f"CroCoNet(enc_depth=open({str(sprung)!r}, 'w'))"
    with pytest.raises(ValueError, match="malformed node"):
        architecture_of({"args": argparse.Namespace(model=evil)})
    assert not sprung.exists()


def test_weights_of_an_mae_start_an_encoder_and_leave_the_decoder(tmp_path):
    torch.manual_seed(1)
    mae = MAE(SIZE)
    encoder = {name: value for name, value in mae.state_dict().items() if name.split(".")[0] in MAE.ENCODER}
    model = CroCo(SIZE)
    decoder = {
        name: value.clone() for name, value in model.state_dict().items() if name.split(".")[0] not in CroCo.ENCODER
    }
    for number, state in enumerate((encoder, mae.state_dict())):
        torch.save({"model": state}, tmp_path / f"{number}.pth")
        with torch.no_grad():
            model.patch_embed.proj.bias.fill_(9)
        load_weights(model, tmp_path / f"{number}.pth")
        loaded = model.state_dict()
        assert same({name: loaded[name] for name in decoder}, decoder)
        assert torch.equal(loaded["enc_blocks.0.attn.qkv.weight"], encoder["blocks.0.attn.qkv.weight"])
        assert torch.equal(loaded["enc_norm.bias"], encoder["norm.bias"])
        assert torch.equal(loaded["enc_pos_embed"], encoder["pos_embed"][0, 1:])
        assert not (loaded["patch_embed.proj.bias"] == 9).any()


def test_an_mae_goes_on_from_weights_with_and_without_a_decoder(tmp_path):
    torch.manual_seed(1)
    trained, fresh = MAE(SIZE), MAE(SIZE)
    torch.save({"model": trained.state_dict()}, tmp_path / "whole.pth")
    load_weights(fresh, tmp_path / "whole.pth")
    assert same(fresh.state_dict(), trained.state_dict())
    larger = MAE(replace(SIZE, image_px=64))
    load_weights(larger, tmp_path / "whole.pth")
    assert larger.pos_embed.shape == (1, 65, 32)
    other = MAE(SIZE)
    before = other.decoder_pred.weight.clone()
    encoder = {name: value for name, value in trained.state_dict().items() if name.split(".")[0] in MAE.ENCODER}
    torch.save({"model": encoder}, tmp_path / "encoder.pth")
    load_weights(other, tmp_path / "encoder.pth")
    assert torch.equal(other.decoder_pred.weight, before)
    assert torch.equal(other.cls_token, trained.cls_token)
    del encoder["norm.bias"]
    torch.save({"model": encoder}, tmp_path / "cut.pth")
    with pytest.raises(TrainingError, match=r"norm\.bias is missing"):
        load_weights(other, tmp_path / "cut.pth")
    torch.save({"model": CroCo(SIZE).state_dict()}, tmp_path / "croco.pth")
    with pytest.raises(TrainingError, match="no weights of an MAE"):
        load_weights(other, tmp_path / "croco.pth")


def test_a_file_of_another_network_is_called_that(tmp_path):
    torch.save({"model": {"a": torch.zeros(3)}}, tmp_path / "other.pth")
    with pytest.raises(TrainingError, match=r"no weight of this network is in the file; it begins with a\n"):
        load_weights(CroCo(SIZE), tmp_path / "other.pth")
