"""Which classes of the known label sets are a person: indices of a net's outputs.

Convention: indices as the net gives them, after a data set's `reduce_zero_label`; so index 0 is a person in COCO-Stuff, and
the background in the sets of human parts. Things a person carries (a bag) are no person.

Source: the class lists of mmseg (checked against them in the tests), of LIP, CIHP, ATR and Pascal-Person-Part, of Sapiens
(28 parts) and of FASHN's human parser.
"""

from typing import NamedTuple


class LabelMap(NamedTuple):
    """A label set.

    Attributes:
        num_classes: that a net trained on it has.
        people: the classes that are a person, ascending.
    """

    num_classes: int
    people: tuple[int, ...]


def _parts(num_classes: int, *, without: tuple[int, ...] = ()) -> LabelMap:
    """A set of human parts: everything but the background 0, and but what is carried."""
    return LabelMap(num_classes, tuple(index for index in range(1, num_classes) if index not in without))


LABEL_MAPS = {
    # Scenes, in which a person is one class of many.
    "ade20k": LabelMap(150, (12,)),
    "cityscapes": LabelMap(19, (11, 12)),  # person, rider
    "coco_stuff": LabelMap(171, (0,)),
    "mapillary_v1": LabelMap(66, (19, 20, 21, 22)),  # person, bicyclist, motorcyclist, other rider
    "mapillary_v2": LabelMap(124, (30, 31, 32, 33, 34)),  # person, a group of them, the same riders
    "pascal_context_59": LabelMap(59, (36,)),
    "pascal_context_60": LabelMap(60, (37,)),
    "voc": LabelMap(21, (15,)),
    # People, and parts of them.
    "atr": _parts(18, without=(16,)),  # a bag
    "cihp": _parts(20),
    "fashn": _parts(18, without=(8,)),  # a bag
    "lip": _parts(20),
    "pascal_person_part": _parts(7),
    "sapiens_goliath": _parts(28),
}
