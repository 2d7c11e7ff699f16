"""What may be done with a build, by the words of its terms."""

import pytest

from manifests.audit.prove import audit
from manifests.audit.terms import Terms, terms_of
from tests.support.build_folder import change_rows


@pytest.mark.parametrize(
    ("words", "research", "commercial"),
    [
        ("CC0 1.0 (bodies, clothes), zlib (motions)", "yes", "yes"),
        ("CC0 1.0 (bodies, clothes), AMASS-derived, non-commercial (motions)", "yes", "no"),
        ("terms of SMPL and SURREAL, non-commercial (bodies, textures), your own terms (backgrounds)", "unknown", "no"),
        ("BSD-3-Clause", "yes", "yes"),
        ("Apache-2.0", "yes", "yes"),
        ("CC BY 4.0", "yes", "yes"),
        ("CC-BY-SA-4.0", "yes", "yes"),
        ("CC BY-NC 4.0", "yes", "no"),
        ("CC BY-NC-SA 3.0 (unverified)", "yes", "no"),
        ("CC BY-ND 4.0", "unknown", "unknown"),
        ("CC BY-NC (unverified), signed agreement", "yes", "no"),
        ("research only (unverified)", "yes", "no"),
        ("academic research only, non-commercial", "yes", "no"),
        ("AIST Dance DB terms of use (unverified); AIST++ annotations CC BY 4.0", "unknown", "unknown"),
        ("HUMBI data terms (unverified)", "unknown", "unknown"),
        ("the user's own", "unknown", "unknown"),
        ("CC BY 4.0, no machine learning", "no", "no"),
        ("CC0 1.0, your own terms (backgrounds)", "unknown", "unknown"),
        ("permitted by nobody", "unknown", "unknown"),
        ("", "unknown", "unknown"),
    ],
)
def test_words_are_judged_by_the_strictest_part(words, research, commercial):
    terms = Terms.of(words)
    assert (terms.research, terms.commercial) == (research, commercial)


@pytest.mark.parametrize(
    ("words", "duties", "verified"),
    [
        ("CC BY-SA 4.0", ("attribution", "share alike"), True),
        ("CC BY-NC (unverified), signed agreement", ("attribution", "agreement"), False),
        ("zlib", (), True),
    ],
)
def test_duties_and_what_was_not_verified(words, duties, verified):
    terms = Terms.of(words)
    assert (terms.duties, terms.verified) == (duties, verified)


def test_a_build_is_as_free_as_its_strictest_pair(build):
    change_rows(build, "pairs", "rig-rec1", "pairs", lambda rows: [row | {"licence": "zlib"} for row in rows])
    told = audit(build, tables_only=True).stats["terms"]
    assert {(row["source"], row["licence"]): row["commercial"] for row in told["sources"]} == {
        ("rig", "none"): "unknown", ("rig", "zlib"): "yes", ("synthetic", "none"): "unknown",
    }  # fmt: skip
    assert (told["research"], told["commercial"]) == ("unknown", "unknown")
    assert sum(row["pairs"] for row in told["sources"]) == 117


def test_one_source_for_research_makes_the_build_so():
    rows = [
        {"source": "a", "licence": "CC0", "split": "train", "rows": 5},
        {"source": "b", "licence": "research only (unverified)", "split": "train", "rows": 1},
        {"source": "b", "licence": "research only (unverified)", "split": "val", "rows": 2},
    ]
    told = terms_of(rows)
    assert (told["research"], told["commercial"], told["unverified"]) == ("yes", "no", ["b"])
    assert [row["pairs"] for row in told["sources"]] == [5, 3]
    assert terms_of([])["commercial"] == "unknown"
