"""GUN-71: grasps seen from the chest, 12 thousand pictures of eight people.

``` text
<root>/Subject1/<up to three folders>/<c>NN<rest>.jpg       NN: the grasp, 1 to 73 without 51 and 62; depth beside it as png
```
The number stands at the second and third letter of a file's name. The 33 classes that papers score are grasps of Feix's taxonomy; which
of the 71 they are is in no public list, so the reader takes a table of the user's: CSV lines `grasp,class`.

One subject is held out as the test set, the next one as the validation set ("leave one subject out"); pictures are used whole, as a
square of their longer side. The pictures of one grasp in one folder are an instance: of several views the most certain may count.

Source: Rogez et al., Understanding everyday hands in action from RGB-D images, ICCV 2015; the protocol is from memory (unverified).
"""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manifests.errors import SourceError
from manifests.geometry import square_around
from manifests.types import Domain, Reason, Reject
from training.examples.base import About
from training.examples.listed import Entry, Listed

SUBJECTS = tuple(f"Subject{number}" for number in range(1, 9))
GRASPS = frozenset(range(1, 74)) - {51, 62}
_DEEPEST = 4
_HINT = "give the folder that holds Subject1/ to Subject8/"


def gun71(root: Path, *, split: str, held_out: str = "Subject8", classes: str | None = None) -> Listed:
    """The grasps of one split.

    Args:
        root: holds a folder for each subject.
        split: train, val or test.
        held_out: subject of the test set.
        classes: path of the table that maps grasps to classes; without it every grasp that is there is a class.

    Raises:
        SourceError: there are no subjects, or the table is missing or not a table.
    """
    folders = [root / name for name in SUBJECTS if (root / name).is_dir()]
    if not folders:
        raise SourceError("no Subject1/ to Subject8/ are here", where=root, hint=_HINT)
    names = [folder.name for folder in folders]
    if held_out not in names:
        raise SourceError(
            f"the held out {held_out} is not here", where=root, hint=f"hold out one of {', '.join(names)}"
        )
    val = names[(names.index(held_out) + 1) % len(names)]
    wanted = {
        "test": [held_out],
        "val": [name for name in [val] if name != held_out],
        "train": [name for name in names if name not in (held_out, val)],
    }
    pictures = {folder.name: _pictures(folder) for folder in folders}
    class_of, titles = _classes(Path(classes)) if classes else _every_grasp(pictures)
    entries: list[Entry] = []
    left_out: Counter[tuple[str, Reason, str]] = Counter()
    for name in wanted[split]:
        for path in pictures[name]:
            grasp = _grasp_of(path)
            if grasp is None:
                left_out[name, Reason.BAD_LABEL, "names tell no grasp of 1 to 73 without 51 and 62"] += 1
            elif grasp not in class_of:
                left_out[name, Reason.UNLABELLED, "grasps that the table of classes does not name"] += 1
            else:
                place = path.relative_to(root).as_posix()
                labels = {"class": class_of[grasp], "instance": f"{path.parent.relative_to(root).as_posix()}/{grasp}"}
                entries.append(
                    Entry(key=f"gun71/{place}", picture=path, square_xyxy_px=_whole, labels=labels, subject=name)
                )
    if not entries:
        raise SourceError(
            f"the {split} split holds no picture", where=root, hint="check held_out and the table of classes"
        )
    about = About(
        name="gun71",
        domain=Domain.HAND,
        split=split,
        labels=("class", "instance"),
        classes=titles,
        protocol=f"whole pictures, {held_out} held out, {len(titles)} classes",
        rejects=tuple(Reject("examples", f"gun71/{key}", why, what, num) for (key, why, what), num in left_out.items()),
    )
    return Listed(about, entries)


def _whole(width: int, height: int) -> npt.NDArray[np.float64]:
    return square_around(np.array([-0.5, -0.5, width - 0.5, height - 0.5]), margin=1.0)


def _pictures(folder: Path) -> list[Path]:
    found = (path for suffix in ("*.jpg", "*.jpeg") for path in folder.rglob(suffix))
    return sorted(path for path in found if len(path.relative_to(folder).parts) <= _DEEPEST)


def _grasp_of(path: Path) -> int | None:
    digits = path.stem[1:3]
    return int(digits) if len(digits) == 2 and digits.isascii() and digits.isdigit() and int(digits) in GRASPS else None


def _every_grasp(pictures: dict[str, list[Path]]) -> tuple[dict[int, int], tuple[str, ...]]:
    grasps = sorted({grasp for paths in pictures.values() for grasp in map(_grasp_of, paths) if grasp is not None})
    return {grasp: index for index, grasp in enumerate(grasps)}, tuple(f"grasp {grasp}" for grasp in grasps)


def _classes(path: Path) -> tuple[dict[int, int], tuple[str, ...]]:
    hint = "write a line `grasp,class` for each grasp, such as `17,3`"
    try:
        rows = [row for row in csv.reader(path.read_text().splitlines()) if row and row[0].strip().isdigit()]
        names = {int(row[0]): row[1].strip() for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error, IndexError) as error:
        raise SourceError(f"not a table of classes: {error}", where=path, hint=hint) from error
    if not names or not names.keys() <= GRASPS:
        odd = ", ".join(map(str, sorted(names.keys() - GRASPS)))
        raise SourceError(
            f"it names {'no grasp' if not odd else f'grasps that do not exist: {odd}'}", where=path, hint=hint
        )
    titles = sorted(
        set(names.values()), key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name)
    )
    return {grasp: titles.index(name) for grasp, name in names.items()}, tuple(titles)
