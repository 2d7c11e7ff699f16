"""Any segmentor of mmsegmentation as a human parser: a config, a checkpoint, and which of its classes are people."""

import hashlib
import json
import pickle
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from manifests.doors import door
from manifests.errors import RecipeError, StageError
from pipeline.parsers.label_maps import LABEL_MAPS
from pipeline.parsers.selfie import resize, spread
from pipeline.recipes import ParserRecipe

# Class names that are people in the label sets mmseg ships; for a set of human parts, see `label_maps`.
PEOPLE = frozenset({"person", "people", "human", "rider", "pedestrian"})
DEFAULT_SIDE_PX = 512
BATCH = 8
CERTAIN = 1e4  # log-odds, where every class of a net is a person, or none
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class MmsegParser:
    """A segmentor of mmsegmentation, fed whole square crops.

    The probability of a person is the sum of the softmax over the person classes, so the threshold keeps its meaning
    whatever the number of classes. A config is Python code that mmengine runs: use only configs you trust.
    Checkpoints need no trust: they are loaded with `weights_only=True`, and never through mmengine, which falls back to
    running what a pickle says.

    Args:
        recipe: with `config`, `checkpoint`, and `labels` or `person_classes` unless the classes can be looked up by name.
        device: of torch.

    Raises:
        RecipeError: the config is unknown or broken, or it is not clear which classes are people.
        StageError: the checkpoint is missing, is more than plain tensors, or belongs to another net; from `parse`: the net
            gives no numbers, as some do in half precision.
    """

    def __init__(self, recipe: ParserRecipe, *, device: str = "cpu") -> None:
        config_path = find_config(str(recipe.config))
        config = read_config(config_path)
        state, meta, digest = load_checkpoint(recipe.checkpoint)
        net: Any = build_net(config, config_path)
        _fill(net, state, where=str(recipe.checkpoint))
        self._people = person_indices(
            recipe.person_classes,
            _class_names(meta, config),
            labels=recipe.labels,
            num_classes=max(_last_head(net).out_channels, 2),
            where=str(config_path),
        )
        self._side_px = recipe.input_px or _input_px(config)
        self._device = torch.device(device)
        if self._device.type == "cpu":
            # As OpenCV for the embedded nets: sums have one order, and processes share the machine fairly.
            torch.set_num_threads(1)
        _keep_small(_last_head(net))
        _fuse(net.eval())
        self._net = net.to(self._device, memory_format=torch.channels_last)
        self._align_corners = bool(_last_head(net).align_corners)
        self._precision = PRECISIONS[recipe.precision]
        prepare = config.model.get("data_preprocessor") or {}
        # Given as lists of the channels that the net sees; `bgr_to_rgb` says that these are RGB.
        self._mean = torch.tensor(prepare.get("mean") or [0, 0, 0], device=self._device).float().reshape(1, -1, 1, 1)
        self._std = torch.tensor(prepare.get("std") or [1, 1, 1], device=self._device).float().reshape(1, -1, 1, 1)
        self._rgb = bool(prepare.get("bgr_to_rgb", False))
        model = hashlib.sha256(json.dumps(config.model.to_dict(), sort_keys=True, default=str).encode()).hexdigest()
        self.name = f"mmseg-{config_path.stem}-{model[:6]}-{self._side_px}-{digest[:12]}"
        if recipe.precision != "fp32":
            self.name += f"-{recipe.precision}"

    def parse(self, crops: Sequence[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.float32]]:
        """See `HumanParser.parse`."""
        found: list[npt.NDArray[np.float32]] = []
        for start in range(0, len(crops), BATCH):
            part = crops[start : start + BATCH]
            images = torch.from_numpy(np.stack([resize(crop, self._side_px) for crop in part]))
            if self._device.type == "cuda":
                images = images.pin_memory()
            person = self._person(images.to(self._device, non_blocking=True)).cpu().numpy()
            if not np.isfinite(person).all():  # would pass for nobody
                raise StageError(
                    "the net's output is not a number",
                    where=self.name,
                    hint="use precision fp32; if it is, the checkpoint is broken",
                )
            found += [spread(one, crop.shape[:2]) for one, crop in zip(person, part, strict=True)]
        return found

    @torch.inference_mode()
    def _person(self, images: torch.Tensor) -> torch.Tensor:
        """(B, S, S, 3) uint8 RGB to (B, S, S) probabilities."""
        inputs = images.permute(0, 3, 1, 2).float()  # a view: the channels stay last in memory, as the net wants them
        inputs = (inputs if self._rgb else inputs.flip(1)).sub_(self._mean).div_(self._std)
        shape = (self._side_px, self._side_px)
        metas = [{"img_shape": shape, "ori_shape": shape, "pad_shape": shape}] * len(inputs)
        half = self._precision is not torch.float32
        with torch.autocast(self._device.type, dtype=self._precision if half else None, enabled=half):
            logits = self._net.encode_decode(inputs, metas)
        odds = functional.interpolate(
            self._log_odds(logits.float())[:, None], size=shape, mode="bilinear", align_corners=self._align_corners
        )
        return odds[:, 0].sigmoid()

    def _log_odds(self, logits: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to (B, H, W): log of a person's probability over that of everything else."""
        if logits.shape[1] == 1:  # one output: the log-odds of class 1
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        others = [index for index in range(logits.shape[1]) if index not in self._people]
        person, other = (logits[:, classes].logsumexp(dim=1) for classes in (self._people, others))
        return (person - other).clamp_(-CERTAIN, CERTAIN)


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
        path: a file of `torch.save`: a state dict, or a mapping with `state_dict` and, if known, `meta`; or a file of
            safetensors, whose metadata may name the `classes` as a JSON list.

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
    convert = f"where you trust the file: {door('pipeline', 'convert-checkpoint', path, 'PLAIN.pth')}"
    try:
        loaded = _load_safetensors(path) if path.endswith(".safetensors") else _load_plain(path)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError) as error:
        # Of torch's long text, whose advice would run the file, only what was found.
        found = re.search(r"Unsupported \w+:? (?:GLOBAL )?[\w.]+", str(error))
        raise StageError(
            f"the checkpoint is more than plain tensors, or damaged: {found[0] if found else type(error).__name__}",
            where=path,
            hint=convert,
        ) from error
    state, meta = split_checkpoint(loaded)
    if state is None:
        raise StageError("the checkpoint holds no state dict", where=path, hint=convert)
    with Path(path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return state, meta, digest


def split_checkpoint(loaded: Any) -> tuple[dict[str, torch.Tensor] | None, dict[str, Any]]:
    """The state dict of what was loaded, None if it holds none, and its meta mapping."""
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        return None, {}
    meta = loaded.get("meta") if "state_dict" in loaded else None
    return state, meta if isinstance(meta, dict) else {}


def known_classes(meta: dict[str, Any]) -> list[str] | None:
    """Class names in a checkpoint's meta mapping, as mmseg 1 or mmseg 0 writes them."""
    for held in (meta.get("dataset_meta"), meta):
        for key in ("classes", "CLASSES"):
            if isinstance(held, dict) and held.get(key):
                return [str(name) for name in held[key]]
    return None


def _load_plain(path: str) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _load_safetensors(path: str) -> Any:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise StageError("safetensors is not installed", where=path, hint="pip install safetensors") from error
    try:
        with safe_open(path, framework="pt") as file:
            classes = json.loads((file.metadata() or {}).get("classes", "[]"))
            return {"state_dict": {key: file.get_tensor(key) for key in file.keys()}, "meta": {"classes": classes}}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def person_indices(
    wanted: Sequence[int | str], names: Sequence[str] | None, *, labels: str | None = None, num_classes: int, where: str
) -> list[int]:
    """Which classes are people.

    Args:
        wanted: names or indices; empty: those of `labels`, else look for `PEOPLE` among the names.
        names: of the classes, when known.
        labels: a name of `LABEL_MAPS`.
        num_classes: of the net.
        where: named in errors.

    Raises:
        RecipeError: a name or index is unknown, the label set or the names are not those of this net, or nothing is given
            and no name is known to mean people.
    """
    hint = f"set parser.labels to one of {', '.join(LABEL_MAPS)}, or parser.person_classes to indices"
    if names:
        hint += f" or to some of {list(names)}"
    if labels is not None and not wanted:
        known = LABEL_MAPS[labels]
        if known.num_classes != num_classes:
            raise RecipeError(
                f"label set {labels!r} has {known.num_classes} classes, this net {num_classes}", where=where, hint=hint
            )
        return list(known.people)
    by_name = not wanted or any(isinstance(item, str) for item in wanted)
    if names and by_name and len(names) != num_classes:
        raise RecipeError(
            f"{len(names)} class names are known, but this net has {num_classes} classes", where=where, hint=hint
        )
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


def read_config(path: Path) -> Any:
    """Read a config of mmseg, and strip what needs a network, other processes, or training.

    Raises:
        RecipeError: it does not load, or is of no segmentor.
    """
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
    config.model.pop("auxiliary_head", None)  # of training only: a checkpoint may come with it or without
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


def build_net(config: Any, path: Path) -> nn.Module:
    """Build the segmentor of a config.

    Raises:
        RecipeError: mmseg refuses.
    """
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
    # A training wrapper's prefix, and what only training uses, are no part of the net.
    state = {key.removeprefix("module."): value for key, value in state.items()}
    try:
        missing, unexpected = net.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise StageError(
            f"the checkpoint belongs to another net: {error}", where=where, hint="give the config it was trained with"
        ) from error
    unexpected = [key for key in unexpected if "loss" not in key and not key.startswith("auxiliary_head.")]
    if missing or unexpected:
        raise StageError(
            f"the checkpoint belongs to another net: {len(missing)} weights missing {missing[:3]}, "
            f"{len(unexpected)} unknown {unexpected[:3]}",
            where=where,
            hint="give the config it was trained with",
        )


def _class_names(meta: dict[str, Any], config: Any) -> list[str] | None:
    if names := known_classes(meta):
        return names
    from mmseg.registry import DATASETS

    for loader in ("test_dataloader", "train_dataloader"):
        dataset = (config.get(loader) or {}).get("dataset") or {}
        kind = DATASETS.get(dataset.get("type", ""))
        known = (dataset.get("metainfo") or {}).get("classes") or getattr(kind, "METAINFO", {}).get("classes")
        if known:
            return [str(name) for name in known]
    return None


def _last_head(net: Any) -> Any:
    head = net.decode_head
    return head[-1] if isinstance(head, nn.ModuleList) else head


def _keep_small(head: Any) -> None:
    """Let a head give its logits as small as they are: one map of a person is enlarged later, not one of every class."""
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead

    if type(head).predict_by_feat is BaseDecodeHead.predict_by_feat:
        head.predict_by_feat = lambda logits, _metas: logits


def _fuse(net: nn.Module) -> None:
    """Fold the batch normalisation of mmcv's convolution blocks into their weights: the same sums, a third faster."""
    from mmcv.cnn import ConvModule

    for block in net.modules():
        if (
            isinstance(block, ConvModule)
            and isinstance(block.conv, nn.Conv2d)
            and not block.with_spectral_norm
            and block.with_norm
            and isinstance(block.norm, nn.BatchNorm2d)
            and block.norm.track_running_stats
            and block.order.index("norm") == block.order.index("conv") + 1
        ):
            block.conv = fuse_conv_bn_eval(block.conv, block.norm)
            setattr(block, block.norm_name, nn.Identity())


def _input_px(config: Any) -> int:
    size = (config.model.get("data_preprocessor") or {}).get("size") or config.get("crop_size")
    return max(size) if size else DEFAULT_SIDE_PX
