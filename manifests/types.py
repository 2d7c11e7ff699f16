"""The nouns of the project: frames, crops, pairs and what may become of them.

Row objects live at the edges; in the middle everything is an Arrow column (see `manifests.schema`).
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from manifests.errors import ManifestError

KEY_PART = re.compile(r"[a-z0-9_-]+")
SAMPLE_KEY = re.compile(r"[a-z0-9_-]+(/[a-z0-9_-]+)*")

# A source that cannot tell people apart names everybody in the image with this track; the crop stage finds the tracks.
EVERYBODY = "all"

# Flags of frames that rules ask for; all others only inform.
EVALUATION = "evaluation"  # belongs to an evaluation set: may never be learned from
OFFICIAL_SPLIT = "official_split"  # the dataset's own split, which may show one subject on both sides


class Domain(StrEnum):
    """What the images show."""

    BODY = "body"
    HAND = "hand"


class Split(StrEnum):
    """Who may be learned from."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


class PairKind(StrEnum):
    """How the two images of a pair differ (paper section 3)."""

    CROSS_VIEW = "cross_view"  # same instant, another camera
    CROSS_POSE = "cross_pose"  # same camera, another time


class Role(StrEnum):
    """What an image is for in a sample; a third view is a new role, not a new format."""

    TARGET = "target"  # masked, to be completed
    REFERENCE = "reference"  # seen whole


class BoxFrom(StrEnum):
    """Who found the subject's box."""

    DATASET = "dataset"
    KEYPOINTS = "keypoints"
    PARSER = "parser"
    RENDER = "render"
    FULL_FRAME = "full_frame"


class SilhouetteFrom(StrEnum):
    """Who drew the subject's silhouette."""

    DATASET = "dataset"
    VERTICES = "vertices"  # of the dataset's body or hand model, projected and filled
    KEYPOINTS = "keypoints"  # of the dataset, drawn as capsules
    RENDER = "render"
    PARSER = "parser"
    NONE = "none"


HELD_BACK = "of an evaluation set, never paired"  # what a stage counts of frames that it lists and keeps


class Reason(StrEnum):
    """Why a frame, or the link between a frame and the one before it, was left out."""

    UNREADABLE = "unreadable"  # the file, or this frame of it, does not decode
    FROZEN = "frozen"  # the same picture as the frame before
    BLACK = "black"  # (nearly) no light
    EMPTY = "empty"  # nobody was found
    TOO_SMALL = "too_small"  # the subject has too few pixels
    TRUNCATED = "truncated"  # too much of the subject lies outside the image
    BYSTANDER = "bystander"  # a person whose rays do not meet in the views that see the subject
    AMBIGUOUS = "ambiguous"  # several people, and nothing says who is who in the other views
    SHORT_TRACK = "short_track"  # followed for too few frames to be trusted
    CUT = "cut"  # link: the picture changes at once; no pair crosses it
    TIME_GAP = "time_gap"  # link: frames are missing in time; the track starts anew
    CLOCK = "clock"  # the clock runs backwards or stands still
    UNSYNCHRONISED = "unsynchronised"  # no frame of this camera belongs to the instant
    MISSING = "missing"  # a file or a view that should be there is not
    UNLABELLED = "unlabelled"  # the dataset has no label for this picture, and it cannot be used without
    HIDDEN = "hidden"  # the subject is not seen in this view: labels say so, or what was rendered stands before it
    BAD_LABEL = "bad_label"  # the label contradicts itself or the picture
    TWICE = "twice"  # the same subject is labelled twice in one picture
    CROWD = "crowd"  # several people, and the dataset does not say which is the subject
    JUNK = "junk"  # the dataset marks it as no person, or as a distractor
    SIZE = "size"  # the picture has not the size that its row tells
    FLAGGED = "flagged"  # the recipe leaves out what carries this flag
    EVALUATION = "evaluation"  # it belongs to an evaluation set: never paired
    PARSER_CRASH = "parser_crash"  # the parser died on this input
    ALIKE = "alike"  # pair: the two pictures are nearly the same
    LOW_COVISIBILITY = "low_covisibility"  # pair: too little of the body is seen in both pictures
    OUTSIDE_STRATA = "outside_strata"  # pair: its angle is none that the recipe asks for
    NO_PARTNER = "no_partner"  # pair: there is no second picture that may be paired with this one


@dataclass(frozen=True, slots=True)
class Reject:
    """Something left out, with its reason.

    Attributes:
        stage: that left it out.
        key: of a frame or crop; or the source's name and a path below its root.
        reason: why.
        detail: what a person needs to know of it.
        count: how many frames (or links, or candidates) it stands for, where they are told in one.
    """

    stage: str
    key: str
    reason: Reason
    detail: str = ""
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameKey:
    """Names one person (or hand) in one image: source/split/sequence/instant/view/track.

    The split is part of the name because datasets reuse sequence names across their splits. Each part matches
    `[a-z0-9_-]+`; `instant` is an integer shared by synchronous cameras.
    """

    source: str
    split: Split
    sequence: str
    instant: int
    view: str
    track: str

    def __post_init__(self) -> None:
        for name in ("source", "sequence", "view", "track"):
            if not KEY_PART.fullmatch(getattr(self, name)):
                raise ValueError(f"{name} {getattr(self, name)!r} does not match [a-z0-9_-]+")
        if self.instant < 0:
            raise ValueError(f"instant {self.instant} is negative")

    def __str__(self) -> str:
        return f"{self.source}/{self.split}/{self.sequence}/{self.instant:08d}/{self.view}/{self.track}"

    @classmethod
    def parse(cls, text: str) -> "FrameKey":
        """Read a key back from its text.

        Raises:
            ManifestError: the text is not six parts of the right form.
        """
        parts = text.split("/")
        try:
            if len(parts) != 6:
                raise ValueError(f"it has {len(parts)} parts, not 6")
            source, split, sequence, instant, view, track = parts
            if split not in set(Split):
                raise ValueError(f"split {split!r} is none of {', '.join(Split)}")
            if not instant.isdecimal():
                raise ValueError(f"instant {instant!r} is no whole number")
            return cls(
                source=source, split=Split(split), sequence=sequence, instant=int(instant), view=view, track=track
            )
        except ValueError as error:
            raise ManifestError(
                f"not a frame key: {error}",
                where=text,
                hint="a key is source/split/sequence/instant/view/track, as `manifests show OUT` lists them",
            ) from error


def key_part(name: str) -> str:
    """Turn any name (a folder, a camera's file) into a part of a key: lower case, other characters as one `-`.

    Raises:
        ValueError: nothing of the name is left.
    """
    part = re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")
    if not part:
        raise ValueError(f"{name!r} holds no letter or digit to name a key with")
    return part
