"""Checkpoints that hold more than weights, made plain: what a training run pickled beside them is dropped."""

import io
from pathlib import Path

import torch

from manifests.errors import StageError
from manifests.files import write_bytes
from pipeline.parsers.mmseg import known_classes, load_checkpoint, split_checkpoint


def convert_checkpoint(source: Path, target: Path, *, trusted: bool = False) -> int:
    """Write the weights and class names of a checkpoint as plain tensors and strings.

    Args:
        source: of `torch.save`, or safetensors.
        target: the file to write; it appears whole or not at all.
        trusted: unpickle what plain loading refuses. That runs whatever code the file's author put into it.

    Returns:
        the number of tensors.

    Raises:
        StageError: the file needs trust that is not given, holds no weights, or the target cannot be written.
    """
    if source.resolve() == target.resolve():
        raise StageError("source and target are one file", where=target, hint="give the result another name")
    try:
        state, meta, _ = load_checkpoint(str(source))
    except StageError as error:
        if not source.is_file():
            raise
        if not trusted:
            raise StageError(
                f"{error.what}; to read more, Python would run whatever code the file's author put into it",
                where=source,
                hint="only if you trust whoever made the file: add --i-trust-this-file",
            ) from error
        state, meta = _unpickle(source)
    plain = {
        "state_dict": {key: value.detach().clone().contiguous() for key, value in state.items()},
        "meta": {"dataset_meta": {"classes": known_classes(meta)}},
    }
    data = io.BytesIO()
    torch.save(plain, data)
    try:
        write_bytes(target, data.getvalue())
    except OSError as error:
        raise StageError(
            f"the checkpoint cannot be written: {error.strerror}", where=target, hint="give a folder you may write to"
        ) from error
    return len(state)


def _unpickle(source: Path) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    try:
        loaded = torch.load(source, map_location="cpu", weights_only=False)
    except Exception as error:
        raise StageError(
            f"the checkpoint does not load: {type(error).__name__}: {error}",
            where=source,
            hint="it may be damaged, or need the packages it was trained with",
        ) from error
    state, meta = split_checkpoint(loaded)
    if state is None:
        raise StageError("the checkpoint holds no state dict", where=source, hint="give one of a trained net")
    return state, meta
