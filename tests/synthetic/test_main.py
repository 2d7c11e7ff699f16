from pathlib import Path

import cv2
import pytest

from synthetic.__main__ import main
from synthetic.render import Renderer
from tests.support.clips import waving, write_clip


def test_sheet_draws_a_row_for_each_scene(renderer: Renderer, body_file: Path, tmp_path: Path) -> None:
    write_clip(tmp_path, "waving", waving())
    out = tmp_path / "new" / "sheet.png"
    command = ["sheet", "--body", str(body_file), "--motion", str(tmp_path), "--out", str(out)]
    assert main([*command, "--num-scenes", "2", "--num-views", "2", "--image-px", "64"]) == 0
    assert cv2.imread(str(out)).shape == (2 * 64, 2 * 2 * 64, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--body": "none.npz"}, "there is no body"),
        ({"--motion": "empty"}, "no motion clip"),
        ({"--num-scenes": "0"}, "num_identities must be at least 1"),
        ({"--out": "sheet.txt", "--num-scenes": "1"}, "no picture format"),
    ],
)
def test_refusals_say_what_where_and_what_to_try(
    renderer: Renderer,
    body_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, str],
    message: str,
) -> None:
    write_clip(tmp_path, "waving", waving())
    (tmp_path / "empty").mkdir()
    options = {
        "--body": str(body_file),
        "--motion": str(tmp_path),
        "--out": str(tmp_path / "s.png"),
        "--image-px": "32",
        "--num-views": "1",
    }
    options |= {key: value if value.isdigit() else str(tmp_path / value) for key, value in change.items()}
    assert main(["sheet", *(part for pair in options.items() for part in pair)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "where:" in said
    assert "try:" in said
