"""FreiHAND is recognised, and refused with the reason."""

import pytest

from manifests.errors import SourceError
from manifests.types import Split
from pipeline.recipes import SourceRecipe, dataset
from pipeline.sources import build_source
from pipeline.sources.base import Recording
from tests.support.freihand_fixture import write_freihand
from tests.support.proof import run_road


def source():
    return build_source(SourceRecipe(kind="freihand", name="freihand"))


@pytest.fixture
def freihand(tmp_path):
    return write_freihand(tmp_path / "zip" / "FreiHAND_pub_v2")


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_recognised_and_refused(freihand, levels):
    root = (freihand, *freihand.parents)[levels]
    assert [marker.found for marker in source().look(root)] == [True, True]
    with pytest.raises(
        SourceError, match="no view grouping: unusable for pairs; FreiHAND is the evaluation set"
    ) as error:
        source().recordings(root)
    assert error.value.where == str(freihand)
    assert "HanCo" in error.value.hint


def test_nothing_is_built_of_it(freihand, tmp_path):
    with pytest.raises(SourceError, match="unusable for pairs"):
        run_road(dataset("freihand"), {"freihand": freihand}, tmp_path / "out")
    made_up = Recording(sequence="a", group="a", split=None, files=())
    with pytest.raises(SourceError, match="unusable for pairs"):
        source().scan(freihand, made_up, split=Split.TRAIN)


def test_the_evaluation_download_in_place_of_the_whole(tmp_path):
    root = write_freihand(tmp_path / "FreiHAND_pub_v2_eval", training=False)
    first, second = source().look(root)
    assert (first.found, second.found) == (True, False)
    said = "this is FreiHAND_pub_v2_eval; training_K.json is in FreiHAND_pub_v2"
    assert second.hint == said
    with pytest.raises(SourceError, match=said) as error:
        source().recordings(root)
    assert "unusable for pairs" in error.value.hint


def test_other_folders(tmp_path):
    (tmp_path / "evaluation" / "rgb").mkdir(parents=True)
    assert not source().look(tmp_path)[0].found
    for root in (tmp_path, tmp_path / "none"):
        with pytest.raises(SourceError, match=r"neither training/rgb/|no folder"):
            source().recordings(root)
