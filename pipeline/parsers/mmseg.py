"""Any segmentor of mmsegmentation as a human parser: a config, a checkpoint, and which of its classes are people."""

import hashlib
import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from manifests.errors import RecipeError, StageError
from pipeline.parsers.selfie import resize, spread
from pipeline.recipes import ParserRecipe

# Class names that are people in the label sets mmseg ships; a set of human parts must be given by index.
PEOPLE = frozenset({"person", "people", "human", "rider", "pedestrian"})
DEFAULT_SIDE_PX = 512
BATCH = 8


class MmsegParser:
    """A segmentor of mmsegmentation, fed whole square crops.

    The probability of a person is the sum of the softmax over the person classes, so the threshold keeps its meaning
    whatever the number of classes. A config is Python code that mmengine runs: use only configs you trust.
    Checkpoints need no trust: they are loaded with `weights_only=True`, and never through mmengine, which falls back to
    running what a pickle says.

    Args:
        recipe: with `config`, `checkpoint`, and `person_classes` unless the classes can be looked up by name.
        device: of torch.

    Raises:
        RecipeError: the config is unknown or broken, or it is not clear which classes are people.
        StageError: the checkpoint is missing, is more than plain tensors, or belongs to another net.
    """

    def __init__(self, recipe: ParserRecipe, *, device: str = "cpu") -> None:
        config_path = find_config(str(recipe.config))
        config = _read_config(config_path)
        state, meta, digest = load_checkpoint(recipe.checkpoint)
        self._net = _build(config, config_path)
        _fill(self._net, state, where=str(recipe.checkpoint))
        self._device = torch.device(device)
        self._net.to(self._device).eval()
        outputs = _num_outputs(self._net)
        self._people = person_indices(
            recipe.person_classes, _class_names(meta, config), num_classes=max(outputs, 2), where=str(config_path)
        )
        self._side_px = recipe.input_px or _input_px(config)
        prepare = config.model.get("data_preprocessor") or {}
        # Given as lists of the channels that the net sees; `bgr_to_rgb` says that these are RGB.
        self._mean = np.asarray(prepare.get("mean") or [0, 0, 0], np.float32)
        self._std = np.asarray(prepare.get("std") or [1, 1, 1], np.float32)
        self._rgb = bool(prepare.get("bgr_to_rgb", False))
        self.name = f"mmseg-{config_path.stem}-{self._side_px}-{digest[:12]}"

    def parse(self, crops: Sequence[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.float32]]:
        """See `HumanParser.parse`."""
        found: list[npt.NDArray[np.float32]] = []
        for start in range(0, len(crops), BATCH):
            part = crops[start : start + BATCH]
            images = np.stack([resize(crop, self._side_px) for crop in part]).astype(np.float32)
            images = (images if self._rgb else images[..., ::-1]) - self._mean
            inputs = torch.from_numpy(np.ascontiguousarray((images / self._std).transpose(0, 3, 1, 2)))
            person = self._person(inputs.to(self._device)).cpu().numpy()
            found += [spread(one, crop.shape[:2]) for one, crop in zip(person, part, strict=True)]
        return found

    def _person(self, inputs: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) to (B, S, S)."""
        shape = tuple(inputs.shape[2:])
        metas = [{"img_shape": shape, "ori_shape": shape, "pad_shape": shape}] * len(inputs)
        with torch.inference_mode():
            net: Any = self._net
            logits = net.encode_decode(inputs, metas)
            if logits.shape[1] == 1:  # one output: the probability of class 1
                foreground = logits.sigmoid()
                probability = torch.cat([1 - foreground, foreground], dim=1)
            else:
                probability = logits.softmax(dim=1)
            person: torch.Tensor = probability[:, self._people].sum(dim=1)
        return person.float()


def find_config(name: str) -> Path:
    """A config file: a path, or the name of one that ships with mmseg.

    Raises:
        RecipeError: there is none.
    """
    if Path(name).is_file():
        return Path(name)
    import mmseg

    shipped = Path(mmseg.__file__).parent / ".mim" / "configs"
    stem = name.removesuffix(".py")
    matches = sorted(shipped.rglob(f"{Path(stem).name}.py"))
    matches = [path for path in matches if path.with_suffix("").as_posix().endswith(f"/{stem}")]
    if not matches:
        raise RecipeError("no such mmseg config", where=name, hint=f"a file, or the name of one below {shipped}")
    return matches[0]


def load_checkpoint(path: str | None) -> tuple[dict[str, torch.Tensor], dict[str, Any], str]:
    """Read weights without running anything.

    Args:
        path: a file of `torch.save`: a state dict, or a mapping with `state_dict` and, if known, `meta`.

    Returns:
        the state dict, the meta mapping, and the file's SHA-256.

    Raises:
        StageError: it is not on this disk, or holds other things than tensors and plain values.
    """
    if path is None or "://" in path or not Path(path).is_file():
        raise StageError(
            "the mmseg backend needs a checkpoint on disk",
            where=path or "parser.checkpoint",
            hint="download it yourself and give its path",
        )
    convert = (
        "export plain weights where you trust the file: `c = torch.load(FILE, weights_only=False); "
        "torch.save({'state_dict': c['state_dict'], 'meta': {'dataset_meta': {'classes': [...]}}}, NEW)`"
    )
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise StageError(
            f"the checkpoint is more than plain tensors, or damaged: {reason}", where=path, hint=convert
        ) from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise StageError("the checkpoint holds no state dict", where=path, hint=convert)
    meta = loaded.get("meta") if "state_dict" in loaded else None
    with Path(path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return state, meta if isinstance(meta, dict) else {}, digest


def person_indices(
    wanted: Sequence[int | str], names: Sequence[str] | None, *, num_classes: int, where: str
) -> list[int]:
    """Which classes are people.

    Args:
        wanted: names or indices; empty: look for `PEOPLE` among the names.
        names: of the classes, when known.
        num_classes: of the net.
        where: named in errors.

    Raises:
        RecipeError: a name or index is unknown, or nothing is given and no name is known to mean people.
    """
    hint = f"set parser.person_classes; known: {list(names)}" if names else "set parser.person_classes to indices"
    if not wanted:
        found = [index for index, name in enumerate(names or ()) if name.lower() in PEOPLE]
        if not found:
            raise RecipeError("no class of this net is known to be a person", where=where, hint=hint)
        return found
    found = []
    for item in wanted:
        index = list(names or ()).index(item) if isinstance(item, str) and item in (names or ()) else item
        if not isinstance(index, int) or not 0 <= index < num_classes:
            raise RecipeError(f"{item!r} is no class of this net", where=where, hint=hint)
        found.append(index)
    return sorted(set(found))


def _read_config(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of mmcv without compiled ops, which these nets do not need
        import mmseg.models  # noqa: F401  registers the segmentors
        from mmengine.config import Config
    try:
        config = Config.fromfile(str(path))
    except Exception as error:
        raise RecipeError(
            f"the mmseg config does not load: {error}", where=path, hint="try it with mmseg itself"
        ) from error
    if "model" not in config:
        raise RecipeError("the mmseg config has no `model`", where=path, hint="give the config of a segmentor")
    _make_local(config.model)
    return config


def _make_local(node: Any) -> None:
    """Strip downloads and multi-process layers from a model's config, in place."""
    if isinstance(node, dict):
        for key in ("init_cfg", "pretrained"):
            if key in node:
                node[key] = None
        if node.get("type") == "SyncBN":
            node["type"] = "BN"
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ():
        _make_local(child)


def _build(config: Any, path: Path) -> nn.Module:
    from mmengine.registry import DefaultScope
    from mmseg.registry import MODELS

    try:
        with DefaultScope.overwrite_default_scope("mmseg"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # mmseg warns of its own old argument names
            net: nn.Module = MODELS.build(config.model)
    except Exception as error:
        raise RecipeError(
            f"mmseg cannot build this net: {error}", where=path, hint="some need mmdet, mmpretrain or compiled mmcv ops"
        ) from error
    return net


def _fill(net: nn.Module, state: dict[str, torch.Tensor], *, where: str) -> None:
    # A training wrapper's prefix, and the loss's class weights, are no part of the net.
    state = {key.removeprefix("module."): value for key, value in state.items()}
    try:
        missing, unexpected = net.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise StageError(
            f"the checkpoint belongs to another net: {error}", where=where, hint="give the config it was trained with"
        ) from error
    unexpected = [key for key in unexpected if "loss" not in key]
    if missing or unexpected:
        raise StageError(
            f"the checkpoint belongs to another net: {len(missing)} weights missing {missing[:3]}, "
            f"{len(unexpected)} unknown {unexpected[:3]}",
            where=where,
            hint="give the config it was trained with",
        )


def _class_names(meta: dict[str, Any], config: Any) -> list[str] | None:
    for held in (meta.get("dataset_meta"), meta):
        for key in ("classes", "CLASSES"):
            if isinstance(held, dict) and held.get(key):
                return [str(name) for name in held[key]]
    from mmseg.registry import DATASETS

    for loader in ("test_dataloader", "train_dataloader"):
        dataset = (config.get(loader) or {}).get("dataset") or {}
        kind = DATASETS.get(dataset.get("type", ""))
        known = (dataset.get("metainfo") or {}).get("classes") or getattr(kind, "METAINFO", {}).get("classes")
        if known:
            return [str(name) for name in known]
    return None


def _num_outputs(net: nn.Module) -> int:
    head: Any = net.decode_head
    head = head[-1] if isinstance(head, nn.ModuleList) else head
    return int(head.out_channels)


def _input_px(config: Any) -> int:
    size = (config.model.get("data_preprocessor") or {}).get("size") or config.get("crop_size")
    return max(size) if size else DEFAULT_SIDE_PX
