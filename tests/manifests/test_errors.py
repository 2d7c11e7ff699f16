"""The error family: what, where and hint reach the reader, also through pickle (which Ray's driver needs)."""

import copy
import inspect
import pickle
from pathlib import Path

import pytest

from manifests import errors
from manifests.errors import CrossposeError

FAMILY = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, CrossposeError)]


def test_family_is_the_tree_that_the_module_draws():
    drawn = {line.split()[1] for line in errors.__doc__.splitlines() if line.startswith(("├──", "└──"))}
    assert {cls.__name__ for cls in FAMILY} == drawn | {"CrossposeError"}
    assert all(cls.__bases__ == (CrossposeError,) for cls in FAMILY if cls is not CrossposeError)


@pytest.mark.parametrize("cls", FAMILY)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_keeps_type_and_words(cls, protocol):
    error = cls("a video does not open", where=Path("clips") / "a.mp4", hint="convert it")
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is cls
    assert (again.what, again.where, again.hint) == ("a video does not open", "clips/a.mp4", "convert it")
    assert str(again) == str(error)


@pytest.mark.parametrize("cls", FAMILY)
def test_copies_keep_type_and_words(cls):
    error = cls("what", where="where", hint="hint")
    for again in (copy.copy(error), copy.deepcopy(error)):
        assert (type(again), str(again)) == (cls, str(error))


@pytest.mark.parametrize("cls", FAMILY)
def test_message_has_three_lines_that_name_the_fix(cls):
    error = cls("pairs.parquet has no rows", where="out/pairs", hint="run `make pairs`")
    assert str(error) == "pairs.parquet has no rows\n  where: out/pairs\n  try:   run `make pairs`"


def test_where_and_hint_are_not_optional():
    with pytest.raises(TypeError, match="where"):
        CrossposeError("what", hint="hint")
    with pytest.raises(TypeError, match="hint"):
        CrossposeError("what", where="where")


def test_whoever_catches_the_base_catches_all():
    caught = []
    for cls in FAMILY:
        try:
            raise cls("what", where="where", hint="hint")
        except CrossposeError as error:
            caught.append(type(error))
    assert caught == FAMILY
