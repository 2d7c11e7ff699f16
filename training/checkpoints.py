"""Checkpoints: written whole or not at all, read without running anything that a file may hold.

A run keeps `checkpoints/step-<step>.pt`, each with the weights, the optimiser, the step, the place in the stream, and the recipe.
Where processes share the weights, `checkpoints/step-<step>/` holds the share of each as safetensors, written at the same time by
`torch.distributed.checkpoint`, and the rest as JSON. Both hold tensors by name, so any number of processes goes on from either.
(The usual files of `torch.distributed.checkpoint` keep their index as a pickle, which is not read here.) Public CroCo and MAE
weights are read by the same door.
"""

import argparse
import ast
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load as load_distributed
from torch.distributed.checkpoint.state_dict_saver import save as save_distributed

from manifests.errors import TrainingError
from training.model.croco import Architecture, CroCo
from training.model.mae import MAE
from training.model.positions import resize_positions

FORMAT = 2
PLACE = "place.json"
"""In a checkpoint of shares: what is no tensor, and the size of each file that is there."""

_NAME = re.compile(r"step-(\d{8,})(\.pt)?")
_POSITIONS = ("enc_pos_embed", "dec_pos_embed", "pos_embed", "decoder_pos_embed")
_REFUSED = re.compile(r"GLOBAL ([\w.]+)")
# What the public files call our sizes.
_PUBLIC_NAMES = {
    "img_size": "image_px",
    "patch_size": "patch_px",
    "enc_embed_dim": "enc_dim",
    "enc_depth": "enc_depth",
    "enc_num_heads": "enc_heads",
    "dec_embed_dim": "dec_dim",
    "dec_depth": "dec_depth",
    "dec_num_heads": "dec_heads",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a run is after a step.

    Args:
        step: steps done.
        position: pairs of the stream consumed, over all processes.
        shards: hash of the shard table that the stream ran over.
        recipe: the recipe as plain values.
        init: SHA-256 of the file the weights started from, or None.
        usual_norm: running mean of the gradient's norm.
    """

    step: int
    position: int
    shards: str
    recipe: dict[str, Any]
    init: str | None
    usual_norm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint(Place):
    """State of a run after a step: its place, and whole tensors.

    Args:
        model: state dict of the network.
        head: state dict of the keypoint head, empty without one.
        optimizer: state dict of the optimiser, by names of weights.
    """

    model: dict[str, Tensor]
    head: dict[str, Tensor]
    optimizer: dict[str, Any]


def write_atomic(path: Path, data: bytes) -> None:
    """Put a file in place whole: temporary name, fsync, rename, fsync of the folder.

    Raises:
        TrainingError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            _sync(file.fileno())
        _replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _unwritable(path, error) from error


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write a checkpoint, then remove the oldest ones beyond `keep`.

    Raises:
        TrainingError: the disk is full or the folder cannot be written; earlier checkpoints are untouched.
    """
    path = folder / f"step-{checkpoint.step:08d}.pt"
    write_checkpoint(path, checkpoint)
    _forget(list_checkpoints(folder)[:-keep])
    return path


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint under any name, whole or not at all.

    Raises:
        TrainingError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    values = {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            torch.save({"format": FORMAT, **values}, file)
            _sync(file.fileno())
        _replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        temporary.unlink(missing_ok=True)
        raise _unwritable(path, error) from error


def save_shares(folder: Path, place: Place, shares: Mapping[str, Tensor], *, keep: int) -> Path:
    """Write a checkpoint of which each process holds a share, all at the same time, then remove the oldest ones beyond `keep`.

    Args:
        folder: the run's checkpoints.
        place: what all processes agree on.
        shares: this process's tensors by name, as `shares_of` gives them.
        keep: how many stay.

    Raises:
        TrainingError: the disk of some process is full, or the folder cannot be written; earlier checkpoints are untouched.
    """
    path, is_first = folder / f"step-{place.step:08d}", dist.get_rank() == 0
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        if is_first:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        dist.barrier()
        writer = HuggingFaceStorageWriter(str(temporary), save_distributed=True)
        save_distributed(dict(shares), storage_writer=writer)
        if is_first:
            sizes = {file.name: file.stat().st_size for file in sorted(temporary.iterdir())}
            values = {field.name: getattr(place, field.name) for field in fields(Place)}
            write_atomic(temporary / PLACE, json.dumps({"format": FORMAT, "files": sizes, **values}).encode())
            _replace(temporary, path)
            _forget(list_checkpoints(folder)[:-keep])
    except (OSError, CheckpointException) as error:
        raise _unwritable(path, error) from error
    dist.barrier()
    return path


def shares_of(state: Mapping[str, Any], optimizer: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors of a network's and its optimiser's state dict under one name each; the tensors themselves, no copies."""
    moments = {
        f"optimizer.{name}.{kind}": value for name, kinds in optimizer["state"].items() for kind, value in kinds.items()
    }
    return {**state, **moments}


def load_shares(path: Path, shares: dict[str, Tensor]) -> None:
    """Fill this process's shares from a checkpoint of however many.

    Args:
        path: its folder.
        shares: as `shares_of` gives them, changed in place.

    Raises:
        TrainingError: a file of it is missing, cut or damaged.
    """
    read_place(path)
    try:
        with warnings.catch_warnings():
            # Each process reads what it needs: there is nothing to agree on.
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
            load_distributed(dict(shares), storage_reader=HuggingFaceStorageReader(str(path)), no_dist=True)
    except (CheckpointException, SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise _damaged(path, error) from error


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a run, oldest first; temporary files of a killed one are no checkpoints."""
    found = [(int(match[1]), path) for path in folder.glob("step-*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def read_place(path: Path) -> Place:
    """Read where one of our own checkpoints was written; of a single file, the whole `Checkpoint`.

    Raises:
        TrainingError: it is damaged, or no checkpoint of ours.
    """
    if not path.is_dir():
        return read_checkpoint(path)
    try:
        values = json.loads((path / PLACE).read_bytes())
        sizes = {name: (path / name).stat().st_size for name in values["files"]}
        if values.pop("format") != FORMAT or values.pop("files") != sizes:
            raise ValueError("a file is not as long as it was written")
        return Place(**values)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _damaged(path, error) from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one of our own checkpoints whole.

    Raises:
        TrainingError: the file is damaged, or no checkpoint of ours.
    """
    if path.is_dir():
        return _read_whole(path)
    payload = _load(path)
    names = [field.name for field in fields(Checkpoint)]
    if payload.get("format") != FORMAT or any(name not in payload for name in names):
        raise TrainingError(
            "the file is no checkpoint of a crosspose run",
            where=path,
            hint="give a file of OUT/checkpoints, or use --init",
        )
    return Checkpoint(**{name: payload[name] for name in names})


def load_weights(model: CroCo | MAE, path: Path) -> str:
    """Fill a network from a checkpoint of ours, or from public weights, resizing cosine tables to the grid if needed.

    Weights of an MAE fill the encoder of a `CroCo`, whose decoder stays as it is, and an `MAE` whole; its decoder stays, too, if
    the file has none.

    Args:
        model: the network, changed in place.
        path: `.pt` or `.pth` with the state dict under `model`, or `.safetensors`.

    Returns:
        SHA-256 of the file.

    Raises:
        TrainingError: the file cannot be read, was trained with other positions, or is of another size.
    """
    payload = read_payload(path)
    state: dict[str, Tensor] = payload["model"]
    of_mae = "cls_token" in state
    if isinstance(model, MAE) and not of_mae:
        raise TrainingError("these are no weights of an MAE", where=path, hint="give mae_pretrain_vit_base.pth")
    if not state.keys() & model.state_dict().keys() and not of_mae:
        raise TrainingError(
            f"no weight of this network is in the file; it begins with {', '.join(list(state)[:3]) or 'nothing'}",
            where=path,
            hint="give a CroCo or MAE: public weights, or a checkpoint of ours",
        )
    _check_architecture(payload, model.architecture, path)
    trained = "cosine" if of_mae or _POSITIONS[0] in state else "rope"
    if trained != model.architecture.positions:
        raise TrainingError(
            f"the weights were trained with {trained} positions, the recipe asks for {model.architecture.positions}",
            where=path,
            hint=f"set architecture.positions to {trained}, or give other weights",
        )
    if of_mae and isinstance(model, CroCo):
        state = _encoder_of_mae(state)
    state = {name: _resized(name, value, model.architecture.side) for name, value in state.items()}
    wanted, encoder = model.state_dict(), {name for name in model.state_dict() if name.split(".")[0] in model.ENCODER}
    if of_mae and encoder >= state.keys():
        wanted = {name: wanted[name] for name in encoder}
    _check_state(state, wanted, path)
    model.load_state_dict(state, strict=False)
    return file_sha256(path)


def read_payload(path: Path) -> dict[str, Any]:
    """All that a file of weights holds, its state dict under `model`.

    Raises:
        TrainingError: the file cannot be read, or holds no weights.
    """
    payload = {"model": _load_safetensors(path)} if path.suffix == ".safetensors" else _load(path)
    state = payload.get("model")
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise TrainingError(
            "the file holds no weights under `model`", where=path, hint="give CroCo.pth or OUT/checkpoints/*.pt"
        )
    return payload


def export_safetensors(model: nn.Module, path: Path) -> None:
    """Write the weights alone, in a format that any framework reads without unpickling; names are those of the public files.

    Raises:
        TrainingError: the file cannot be written.
    """
    from safetensors.torch import save

    write_atomic(path, save({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}))


def architecture_of(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Read the sizes that a public checkpoint states, in our names; nothing in it is evaluated.

    CroCo v2 files say `croco_kwargs`; files of CroCo's trainer carry `args.model`, a call written as text; v1 says nothing.

    Returns:
        The fields of `Architecture` that are stated.

    Raises:
        ValueError: the text is no plain call.
    """
    stated = payload.get("croco_kwargs")
    text = getattr(payload.get("args"), "model", None)
    if stated is None and isinstance(text, str):
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError(f"not a call with named arguments: {text[:80]}")
        stated = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg}
    if not isinstance(stated, Mapping):
        return {}
    sizes: dict[str, Any] = {ours: stated[theirs] for theirs, ours in _PUBLIC_NAMES.items() if theirs in stated}
    if "pos_embed" in stated:
        sizes["positions"] = "cosine" if stated["pos_embed"] == "cosine" else "rope"
    return sizes


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_architecture(payload: Mapping[str, Any], architecture: Architecture, path: Path) -> None:
    try:
        stated = architecture_of(payload)
    except (ValueError, SyntaxError) as error:
        raise TrainingError(
            f"the file's own settings cannot be read: {error}", where=path, hint="check its origin"
        ) from error
    stated.pop("image_px", None)  # another grid is fine: positions are resized
    stated.pop("positions", None)  # told by the weights themselves
    wrong = [
        f"{name} {value}, not {getattr(architecture, name)}"
        for name, value in stated.items()
        if value != getattr(architecture, name)
    ]
    if wrong:
        raise TrainingError(
            f"the weights are of another network: {'; '.join(wrong)}",
            where=path,
            hint="change the recipe's architecture",
        )


def _encoder_of_mae(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An MAE's encoder in our names; its class token and decoder stay behind."""
    begins = {"patch_embed": "patch_embed", "blocks": "enc_blocks", "norm": "enc_norm"}
    parts = {name: name.partition(".") for name in state}
    renamed = {f"{begins[first]}.{rest}": state[n] for n, (first, _, rest) in parts.items() if first in begins}
    return renamed | {"enc_pos_embed": state["pos_embed"][0, 1:]}


def _resized(name: str, value: Tensor, side: int) -> Tensor:
    """Cosine tables for a grid of `side` patches; an MAE's, of three dimensions, begins with the class token's row."""
    if name not in _POSITIONS or value.ndim not in (2, 3):
        return value
    if value.ndim == 2:
        return resize_positions(value, side)
    return torch.cat([value[0, :1], resize_positions(value[0, 1:], side)])[None]


def _check_state(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    problems = [f"{name} is missing" for name in wanted if name not in state]
    problems += [f"{name} is unknown" for name in state if name not in wanted]
    problems += [
        f"{name} is {tuple(state[name].shape)}, not {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in state and state[name].shape != value.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise TrainingError(
            f"the weights do not fit the network: {'; '.join(problems[:3])}{more}",
            where=path,
            hint="give weights of the recipe's architecture",
        )


def _load(path: Path) -> dict[str, Any]:
    """Load tensors and plain values only; files of CroCo's trainer also hold an `argparse.Namespace`."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            payload = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise TrainingError("there is no such file", where=path, hint="check the path") from error
    except Exception as error:  # bytes of any file are read as instructions, and may fail in any way
        if refused := _REFUSED.search(str(error)):
            raise TrainingError(
                f"the file holds an object of {refused[1]}; only tensors and plain values are read, as others may run code",
                where=path,
                hint="save its weights alone, torch.save({'model': state_dict}, path), where you trust it",
            ) from error
        # What torch says of bytes that are no pickle is advice to read them unchecked.
        said = str(error).strip().splitlines() if isinstance(error, OSError | RuntimeError) else []
        raise TrainingError(
            f"the file cannot be read as a checkpoint: {said[0] if said else 'its bytes are not those of one'}",
            where=path,
            hint="it is none, or damaged: fetch it again",
        ) from error
    if not isinstance(payload, dict):
        raise TrainingError("the file holds no checkpoint", where=path, hint="give CroCo.pth or OUT/checkpoints/*.pt")
    return payload


def _read_whole(path: Path) -> Checkpoint:
    """A checkpoint of shares, put together."""
    place = read_place(path)
    try:
        stored = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error
    whole = {name: torch.empty(of.size, dtype=of.properties.dtype) for name, of in stored.items()}  # type: ignore[union-attr]
    load_shares(path, whole)
    parts: dict[str, dict[str, Any]] = {"model": {}, "head": {}, "optimizer": {}}
    for name, value in whole.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    state: dict[str, dict[str, Tensor]] = {}
    for name, value in parts["optimizer"].items():
        weight, _, kind = name.rpartition(".")
        state.setdefault(weight, {})[kind] = value
    values: dict[str, Any] = {field.name: getattr(place, field.name) for field in fields(Place)}
    return Checkpoint(**values, model=parts["model"], head=parts["head"], optimizer={"state": state})


def _forget(paths: list[Path]) -> None:
    for path in paths:
        if path.is_dir():
            # Killed half-way, the rest must not look like a checkpoint.
            path = path.replace(path.with_name(f".{path.name}.old"))
            shutil.rmtree(path)
        else:
            path.unlink()


def _damaged(path: Path, error: BaseException) -> TrainingError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    hint = "remove it: the run goes on from the one before"
    return TrainingError(f"the checkpoint cannot be read: {lines[0]}", where=path, hint=hint)


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"the weights cannot be read: {error}", where=path, hint="fetch the file again") from error


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)


def _replace(temporary: Path, path: Path) -> None:
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _unwritable(path: Path, error: BaseException) -> TrainingError:
    return TrainingError(f"cannot write: {error}", where=path, hint="free some space, or give another --out")
