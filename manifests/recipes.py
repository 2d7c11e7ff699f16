"""Recipes as data: frozen dataclasses to JSON and back, strictly checked, with one fingerprint.

A recipe decides the result and nothing about the machine: no path of an output, no number of workers, no device.
"""

import dataclasses
import difflib
import hashlib
import json
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml

from manifests.errors import RecipeError

R = TypeVar("R")
ABOVE_0, BELOW_1 = sys.float_info.min, math.nextafter(1.0, 0.0)  # of open ranges


def to_mapping(value: Any) -> Any:
    """Turn a recipe (or any part of one) into plain JSON values: dict, list, str, int, float, bool, None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_mapping(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): to_mapping(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_mapping(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"a recipe holds plain values, not {type(value).__name__}")


def canonical_json(value: Any) -> str:
    """Write a value as JSON with sorted keys and no spare spaces: equal values give equal text."""
    return json.dumps(to_mapping(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def fingerprint(value: Any) -> str:
    """SHA-256 of the canonical JSON of a value, 64 hex digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def changed_keys(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Name the leaves that differ between two mappings, as `key: old -> new` with dotted keys."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        changes = []
        for key in sorted({*old, *new}):
            changes += changed_keys(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else str(key))
        return changes
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new) and _mappings(old) and _mappings(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [change for at, (was, now) in pairs for change in changed_keys(was, now, f"{prefix}.{at}")]
    return [] if old == new else [f"{prefix}: {_short(old)} -> {_short(new)}"]


def _mappings(items: list[Any]) -> bool:
    return all(isinstance(item, Mapping) for item in items)


def _short(value: Any, limit: int = 60) -> str:
    text = json.dumps(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def from_mapping(cls: type[R], mapping: Mapping[str, Any], *, base: R | None = None, where: str = "recipe") -> R:
    """Build a recipe from plain values, refusing what it does not know.

    Args:
        cls: the frozen dataclass to build.
        mapping: field names to values; nested recipes are nested mappings.
        base: a recipe whose fields hold wherever the mapping is silent.
        where: the file and dotted path, for messages.

    Raises:
        RecipeError: an unknown key (the nearest known name is suggested), a value of the wrong type, or values that
            contradict each other.
    """
    hints = _hints(cls)  # type: ignore[arg-type]  # a class is hashable
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in mapping:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(known)}"
            raise RecipeError(f"unknown recipe key `{key}`", where=f"{where}: {key}", hint=hint)
    values = {name: getattr(base, name) for name in known} if base is not None else {}
    for key, value in mapping.items():
        values[key] = _convert(hints[key], value, values.get(key), f"{where}: {key}")
    try:
        return cls(**values)
    except TypeError as error:
        missing = [
            field.name
            for field in dataclasses.fields(cls)  # type: ignore[arg-type]
            if field.name not in values
            and field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        ]
        named = " and ".join(f"`{name}`" for name in missing) or str(error)
        verb = "are" if len(missing) > 1 else "is"
        raise RecipeError(f"{named} {verb} missing", where=where, hint="name every required key") from error
    except ValueError as error:
        told = str(error)
        keys = ", ".join(name for name in known if re.search(rf"\b{re.escape(name)}\b", told))
        raise RecipeError(
            told, where=f"{where}: {keys}" if keys else where, hint="change one of the keys it names"
        ) from error


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def check_ranges(recipe: object, **ranges: tuple[float, float]) -> None:
    """Refuse a number of a recipe that is none, is infinite, or lies out of its range; one that is None is passed over.

    Args:
        recipe: whose fields are looked at.
        ranges: by field, the least and the largest value; see `ABOVE_0` and `BELOW_1`.

    Raises:
        ValueError: names the field.
    """
    for name, (least, most) in ranges.items():
        value = getattr(recipe, name)
        if value is None or (least <= value <= most and abs(value) <= sys.float_info.max):
            continue
        told = ["above 0" if least == ABOVE_0 else f"at least {least:g}"]
        if most < math.inf:
            told.append("below 1" if most == BELOW_1 else f"at most {most:g}")
        raise ValueError(f"{name} {value} must be {' and '.join(told)}")


def read_recipe(name_or_file: str, recipes: Mapping[str, Callable[[], R]], *, where: str = "RECIPE") -> R:
    """Find a recipe by name, or read a YAML file that names one under `recipe` and changes fields of it.

    A file that gives no `name` of its own is called after its stem.

    Args:
        name_or_file: a name of `recipes`, or a path that ends in .yaml or .yml.
        recipes: the recipes there are, by name.
        where: how the user gave the name, for messages.

    Raises:
        RecipeError: no such recipe or file, no mapping, an unknown key, or values that contradict each other.
    """
    path = Path(name_or_file)
    if path.suffix not in (".yaml", ".yml"):
        return _named(name_or_file, recipes, where=where)
    try:
        mapping = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"the recipe does not read: {error}", where=path, hint="give a YAML file") from error
    if not isinstance(mapping, dict) or not isinstance(mapping.get("recipe"), str):
        raise RecipeError(
            "the file names no recipe to start from",
            where=path,
            hint=f"add `recipe:` with one of {', '.join(recipes)}",
        )
    base = _named(mapping.pop("recipe"), recipes, where=str(path))
    changes = {"name": path.stem, **{str(key): value for key, value in mapping.items()}}
    return from_mapping(type(base), changes, base=base, where=str(path))


def _named(name: str, recipes: Mapping[str, Callable[[], R]], *, where: str) -> R:
    if name not in recipes:
        near = difflib.get_close_matches(name.lower(), recipes, n=1)
        known = f"recipes: {', '.join(recipes)}, or a .yaml file that starts from one"
        raise RecipeError(
            f"no recipe is called `{name}`", where=where, hint=f"did you mean `{near[0]}`?" if near else known
        )
    return recipes[name]()


def _convert(hint: Any, value: Any, base: Any, where: str) -> Any:
    """Check one value against a field's type and turn it into that type."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in options:
            return None
        return _convert_union([option for option in options if option is not type(None)], value, base, where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            keys = [f"{field.name}: ..." for field in dataclasses.fields(hint)]
            raise _wrong(value, f"a mapping like {{{', '.join(keys[:3])}}}", where)
        return from_mapping(hint, value, base=base if isinstance(base, hint) else None, where=where)
    if origin is tuple and isinstance(value, list | tuple):
        if len(options) == 2 and options[1] is Ellipsis:
            return tuple(_convert(options[0], item, None, f"{where}[{i}]") for i, item in enumerate(value))
        if len(options) != len(value):
            raise _wrong(value, f"{len(options)} values", where)
        return tuple(
            _convert(o, item, None, f"{where}[{i}]") for i, (o, item) in enumerate(zip(options, value, strict=True))
        )
    if origin is dict and isinstance(value, Mapping):
        return {
            _convert(options[0], k, None, where): _convert(options[1], v, None, f"{where}.{k}")
            for k, v in value.items()
        }
    if origin is typing.Literal:
        if value in options:
            return value
        raise _wrong(value, f"one of {', '.join(map(repr, options))}", where)
    return _convert_plain(hint, value, where)


def _convert_plain(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, type) and issubclass(hint, Enum):
        try:
            return hint(value)
        except ValueError:
            raise _wrong(value, f"one of {', '.join(repr(m.value) for m in hint)}", where) from None
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not abs(value) <= sys.float_info.max:
            raise _wrong(value, "a finite number", where)
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise _wrong(value, _SPOKEN.get(typing.get_origin(hint) or hint, getattr(hint, "__name__", str(hint))), where)


_SPOKEN = {
    int: "a whole number", float: "a number", str: "text", bool: "true or false", list: "a list like [a, b]",
    tuple: "a list like [a, b]", dict: "a mapping",
}  # fmt: skip


def _convert_union(options: list[Any], value: Any, base: Any, where: str) -> Any:
    for option in options[:-1]:
        try:
            return _convert(option, value, base, where)
        except RecipeError:
            continue
    if all(isinstance(option, type) and not dataclasses.is_dataclass(option) for option in options):
        try:
            return _convert(options[-1], value, base, where)
        except RecipeError:
            raise _wrong(value, " or ".join(option.__name__ for option in options), where) from None
    return _convert(options[-1], value, base, where)


def _wrong(value: Any, wanted: str, where: str) -> RecipeError:
    text = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
    return RecipeError(f"{text} is not {wanted}", where=where, hint=f"give {wanted}")
