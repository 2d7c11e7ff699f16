"""The one family of errors a user meets: what was wrong, where, and what to do.

``` text
CrossposeError
├── SourceError       a raw dataset is not as its layout promises
├── ManifestError     a table or a commit breaks the contract
├── ShardError        a tar, its index or its bytes are damaged
├── RecipeError       a recipe asks for something contradictory or unknown
├── StageError        a stage could not run or finish
├── SyntheticError    a body, a clip or a renderer is missing or unusable
└── TrainingError     a run cannot start, go on or be resumed
```
A bad frame is no error: it becomes a `Reject`. `ValueError` is for a bad argument in code.
"""

from pathlib import Path


class CrossposeError(Exception):
    """Base of the family.

    Args:
        what: one sentence saying what was wrong.
        where: the file, row, key or setting it was seen at.
        hint: what the reader can do about it.
    """

    def __init__(self, what: str, *, where: str | Path, hint: str) -> None:
        super().__init__(what)
        self.what = what
        self.where = str(where)
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}\n  where: {self.where}\n  try:   {self.hint}"

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling, and Ray would lose the type.
        return _rebuild, (type(self), self.what, self.where, self.hint)


def _rebuild(cls: type[CrossposeError], what: str, where: str, hint: str) -> CrossposeError:
    return cls(what, where=where, hint=hint)


class SourceError(CrossposeError):
    """A raw dataset on disk is not as its layout promises."""


class ManifestError(CrossposeError):
    """A table or a commit breaks the contract."""


class ShardError(CrossposeError):
    """A tar, its index or its bytes are damaged."""


class RecipeError(CrossposeError):
    """A recipe asks for something contradictory or unknown."""


class StageError(CrossposeError):
    """A stage could not run, or not finish."""


class SyntheticError(CrossposeError):
    """A body, a motion clip or a renderer is missing or unusable."""


class TrainingError(CrossposeError):
    """A training run cannot start, go on or be resumed."""
