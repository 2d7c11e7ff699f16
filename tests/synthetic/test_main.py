from pathlib import Path

import pytest

from synthetic.__main__ import main


def test_refusals_say_what_where_and_what_to_try(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(tmp_path / "none.pkl"), str(tmp_path / "out.npz")]) == 2
    said = capsys.readouterr().err
    assert "none.pkl" in said
    assert "where:" in said
    assert "try:" in said
    assert not (tmp_path / "out.npz").exists()


def test_an_unknown_verb_lists_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["sheet"])
    assert "body" in capsys.readouterr().err
