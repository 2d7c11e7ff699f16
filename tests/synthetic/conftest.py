import os
from pathlib import Path

import pytest

from manifests.errors import SyntheticError
from synthetic.models.body import BodyModel, build_body, load_body
from synthetic.motion.library import Clip, load_clip
from synthetic.render import Renderer
from tests.support.clips import standing, waving, write_clip


@pytest.fixture(scope="session")
def body_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The body that `make fetch` built, or one built now, which takes ten seconds."""
    built = Path(os.environ.get("CROSSPOSE_ASSETS") or Path(__file__).parents[2] / "assets") / "body.npz"
    return built if built.exists() else build_body(tmp_path_factory.mktemp("body") / "body.npz")


@pytest.fixture(scope="session")
def body(body_file: Path) -> BodyModel:
    return load_body(body_file)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Clip]:
    folder = tmp_path_factory.mktemp("motion")
    made = (write_clip(folder, "standing", standing()), write_clip(folder, "waving", waving()))
    return {clip.name: clip for clip in map(load_clip, made)}


@pytest.fixture(scope="session")
def renderer(body: BodyModel, clips: dict[str, Clip]) -> Renderer:
    try:
        return Renderer.of_body(body, clips)
    except SyntheticError as error:
        pytest.skip(str(error))
