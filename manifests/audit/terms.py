"""What the terms of a build's pairs allow, judged by their words: a help to whoever decides, and no lawyer.

Terms are a few words that a source gives, or `licence:` in a recipe. A semicolon, or a comma after brackets that say what was meant,
begins the terms of something else ("CC0 1.0 (bodies), zlib (motions)"); other commas add to the same. Each is judged by the first rule
that fits, the strictest decides for the whole, and the strictest pair for a build:

- no training at all: a part says so ("no machine learning", "no AI training");
- research alone: "non-commercial", the NC of Creative Commons, "research", "academic", "educational" in any part;
- anything: every part is public domain, CC0, zlib, MIT, BSD, Apache, ISC, Unlicense, or CC BY with or without SA;
- unknown: all else, so also "the user's own", a signed agreement without more, and no-derivatives (ND), which leave open whether a
  network is one.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Answer(StrEnum):
    """Whether terms allow something; the strictest first."""

    NO = "no"
    UNKNOWN = "unknown"
    YES = "yes"


_BARRED = re.compile(r"\bno[nt]?( for)?( \w+)? ?(machine learning|ai|training)\b")
_RESEARCH = re.compile(r"\bnon commercial\b|\bnoncommercial\b|\bnc\b|\bresearch\b|\bacademic\b|\beducational\b")
_OPEN = re.compile(
    r"\bcc0\b|\bpublic domain\b|\bzlib\b|\bmit\b|\bbsd\b|\bapache\b|\bisc\b|\bunlicense\b|\bcc by\b(?!.*\bnd\b)"
)
_DUTIES = {
    "attribution": re.compile(r"\bby\b|\bbsd\b|\bapache\b|\bmit\b|\bisc\b"),
    "share alike": re.compile(r"\bsa\b"),
    "agreement": re.compile(r"\bagreement\b|\bsigned\b"),
}  # fmt: skip
_BRACKETS = re.compile(r"\([^()]*\)?")  # the split takes the last one
_UNVERIFIED = "unverified"  # of sources whose terms nobody could read at their origin


@dataclass(frozen=True, slots=True)
class Terms:
    """What some terms allow.

    Attributes:
        research: whether one may train on it for research.
        commercial: whether one may train on it for anything.
        duties: what they ask in return, as far as their words tell.
        verified: whether the source says that its terms were read where they are published.
    """

    research: Answer
    commercial: Answer
    duties: tuple[str, ...]
    verified: bool

    @classmethod
    def of(cls, words: str) -> "Terms":
        """Judge terms by their words."""
        plain = re.sub(r"[-_ ]+", " ", words.lower().replace(f"({_UNVERIFIED})", ""))
        answers = [_judge(_BRACKETS.sub("", one)) for one in re.split(r";|\) ?,", plain)]
        order = list(Answer)
        research, commercial = (min((one[i] for one in answers), key=order.index) for i in (0, 1))
        duties = tuple(duty for duty, word in _DUTIES.items() if word.search(plain))
        return cls(research, commercial, duties, _UNVERIFIED not in words.lower())


def _judge(words: str) -> tuple[Answer, Answer]:
    """Research and commerce, for the terms of one thing."""
    if _BARRED.search(words):
        return Answer.NO, Answer.NO
    if _RESEARCH.search(words):
        return Answer.YES, Answer.NO
    if all(_OPEN.search(part) for part in words.split(",")):
        return Answer.YES, Answer.YES
    return Answer.UNKNOWN, Answer.UNKNOWN


def terms_of(licences: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Judge the terms of a build, as plain JSON values.

    Args:
        licences: rows of `manifests.audit.stats`: terms, source, split and pairs.

    Returns:
        research and commercial (the strictest of all), duties, unverified (sources), and sources: each with its terms, pairs and what
        these allow. Of a build without pairs all is unknown.
    """
    pairs: dict[tuple[str, str], int] = {}
    for row in licences:
        place = row["source"], row["licence"]
        pairs[place] = pairs.get(place, 0) + row["rows"]
    judged = {place: Terms.of(place[1]) for place in sorted(pairs)}
    order = list(Answer)
    strictest = {
        use: min((getattr(terms, use) for terms in judged.values()), key=order.index, default=Answer.UNKNOWN).value
        for use in ("research", "commercial")
    }
    return {
        **strictest,
        "duties": [duty for duty in _DUTIES if any(duty in terms.duties for terms in judged.values())],
        "unverified": sorted({source for (source, _), terms in judged.items() if not terms.verified}),
        "sources": [
            {
                "source": source,
                "licence": licence,
                "pairs": pairs[source, licence],
                "research": terms.research.value,
                "commercial": terms.commercial.value,
                "duties": list(terms.duties),
                "verified": terms.verified,
            }
            for (source, licence), terms in judged.items()
        ],
    }
