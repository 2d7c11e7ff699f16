"""Who may be learned from: a group (a subject, or a recording) goes to one split as a whole."""

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from manifests.seeds import seed_for
from manifests.types import Split


def split_of(group: str, *, seed: int, val_groups: Collection[str] = (), val_share: float = 0.0) -> Split:
    """Choose the split of a group from its name alone, so that more recordings later move nobody to the other side.

    Args:
        group: name of the subject or recording that must not be in two splits.
        seed: of the build.
        val_groups: groups that go to `val` whatever their hash says.
        val_share: of the other groups, about this share goes to `val`; [0, 1].

    Raises:
        ValueError: val_share is no share.
    """
    if not 0 <= val_share <= 1:
        raise ValueError(f"val_share {val_share} is not in [0, 1]")
    if group in val_groups or seed_for(seed, "split", group) < val_share * 2.0**64:
        return Split.VAL
    return Split.TRAIN


def assign(
    groups: Collection[str], *, seed: int, val_groups: Collection[str] = (), val_share: float = 0.0
) -> dict[str, Split]:
    """Choose the split of every group of a build, see `split_of`; no side stays empty where that can be helped.

    Where the hash would hold everybody out, the group that is held out last stays in `train`; where it would hold out nobody
    of several, though a share is asked for, the group that is held out first goes to `val`.

    Returns:
        the split of each group, by name.
    """
    chosen = {g: split_of(g, seed=seed, val_groups=val_groups, val_share=val_share) for g in sorted(set(groups))}
    by_hash = sorted((g for g in chosen if g not in val_groups), key=lambda group: seed_for(seed, "split", group))
    if by_hash and Split.TRAIN not in chosen.values():
        chosen[by_hash[-1]] = Split.TRAIN
    if len(by_hash) > 1 and val_share > 0 and Split.VAL not in chosen.values():
        chosen[by_hash[0]] = Split.VAL
    return chosen


def leaks(groups: pa.ChunkedArray | pa.Array, splits: pa.ChunkedArray | pa.Array) -> list[str]:
    """Name the groups that are in more than one split, sorted; null groups are nobody's and never leak.

    Args:
        groups: (n,) names.
        splits: (n,) the split of each row.
    """
    rows = pa.table({"group": groups, "split": splits}).filter(pc.is_valid(groups))
    sides = rows.group_by("group").aggregate([("split", "count_distinct")])
    torn = sides.filter(pc.greater(sides.column("split_count_distinct"), 1))
    names: list[str] = torn.column("group").to_pylist()
    return sorted(names)
