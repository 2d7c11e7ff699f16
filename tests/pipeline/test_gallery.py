"""The page of scenes: it stands alone, shows what was rendered, and tells true numbers."""

import base64
import dataclasses
import html
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from manifests.doors import door
from manifests.errors import RecipeError, SyntheticError
from pipeline.__main__ import main
from pipeline.gallery import KEYPOINTS, _palette, chosen_scenes, write_gallery
from pipeline.recipes import BuildRecipe, CropRecipe, SourceRecipe
from pipeline.render import Studio
from synthetic.scene import LABELS, Scene, SceneRecipe
from synthetic.surface import correspond
from tests.support.samples import asset

SIZE = 128
BODIES = BuildRecipe(
    name="<b>&tiny",
    render=SceneRecipe(
        num_identities=3, scenes_per_identity=1, instants_per_scene=2, num_views=2, image_px=SIZE, clips=("walk",)
    ),
    crop=CropRecipe(size_px=SIZE),
)
HAND = BuildRecipe(
    name="hand",
    render=SceneRecipe(
        num_identities=1, scenes_per_identity=1, instants_per_scene=1, num_views=1, image_px=SIZE, domain="hand",
        rig="dome", elevation_max_deg=50.0, distance_min_m=0.4, distance_max_m=0.9, labels=("depth",),
    ),
    crop=CropRecipe(size_px=SIZE),
)  # fmt: skip
VOID = {"meta", "img", "input", "br", "line"}


class Reader(HTMLParser):
    """Tags in order, and those that are not closed or closed without being open."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.astray: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.astray.append(tag)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


@pytest.fixture(scope="module")
def assets() -> Path:
    return asset("body.npz").parent


def written(recipe: BuildRecipe, assets: Path, path: Path, scenes: range) -> str:
    told: list[tuple[int, int]] = []
    try:
        write_gallery(
            path, recipe, assets, scenes, lambda done, total: told.append((done, total)), command="the <command>"
        )
    except SyntheticError as error:
        pytest.skip(str(error))
    assert told == [(done + 1, len(scenes)) for done in range(len(scenes))]
    return path.read_text()


@pytest.fixture(scope="module")
def bodies(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(BODIES, assets, tmp_path_factory.mktemp("bodies") / "gallery.html", range(1, 3))


@pytest.fixture(scope="module")
def hand(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    asset("hand_right.npz")
    return written(HAND, assets, tmp_path_factory.mktemp("hand") / "gallery.html", range(1))


@pytest.fixture(params=["bodies", "hand"])
def page(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


def test_shares_are_those_of_the_surface(bodies: str, assets: Path) -> None:
    """What the page says of its first pair, against correspondence computed here."""
    studio = Studio(assets, dataclasses.replace(BODIES.render, labels=LABELS))
    scene = studio.scene(BODIES.seed, 1)
    one, other, later = (studio.renderer().render(scene, instant=i, view=v) for i, v in ((0, 0), (0, 1), (1, 0)))
    section = bodies.split("<section>")[1]
    told = re.findall(r"shows (\d+) % of what the target shows \((\d+) % by cells\), and the target (\d+) %", section)
    for (there, cells, back), reference in zip(told, (other, later), strict=True):
        assert int(there) == round(100 * correspond(one, reference).covisibility)
        assert int(back) == round(100 * correspond(reference, one).covisibility)
        assert abs(int(cells) - int(there)) < 25
    assert section.count("stroke='hsl(") == 2 * 28


def test_the_page_is_whole_and_needs_nothing(page: str) -> None:
    reader = read(page)
    assert reader.open == []
    assert reader.astray == []
    assert reader.all("script") == []
    assert not re.search(r"(src|href)='(?!data:)", page)
    assert "http:" not in page
    assert "https:" not in page
    assert "default-src 'none'; img-src data:" in page
    assert len(page) < 500_000


def test_pictures_decode(page: str) -> None:
    found = re.findall(r"data:image/(png|jpeg);base64,([A-Za-z0-9+/=]+)", page)
    assert len(found) >= 7
    for _, data in found:
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_UNCHANGED)
        assert picture.shape[:2] == (SIZE, SIZE)
        assert picture.std() > 1


def test_every_image_that_is_shown_is_there(bodies: str) -> None:
    shown = {tag["class"].split()[1] for tag in read(bodies).all("span") if (tag.get("class") or "").startswith("pic ")}
    assert shown == {f"s{scene}i{instant}v{view}" for scene in (1, 2) for instant in (0, 1) for view in (0, 1)}
    assert shown == set(re.findall(r"^\.(s\d+i\d+v\d+) \{ background-image", bodies, re.MULTILINE))


def test_tabs_choose_among_views(bodies: str) -> None:
    inputs = read(bodies).all("input")
    assert [(tag["name"], tag["id"], "checked" in tag) for tag in inputs] == [
        ("s1", "s1-0", True), ("s1", "s1-1", False), ("s2", "s2-0", True), ("s2", "s2-1", False),
    ]  # fmt: skip
    assert [tag["for"] for tag in read(bodies).all("label")] == [tag["id"] for tag in inputs]


def test_keypoints_are_drawn(bodies: str, hand: str) -> None:
    assert len(read(bodies).all("circle")) == 2 * 2 * (24 + 17 + 13)
    assert len(read(hand).all("circle")) == 21 + 16
    for name in ("smpl24", "coco17", "penn13"):
        assert f"<b>{name}</b>" in bodies
        assert f"<b>{name}</b>" not in hand
    assert "<title>thumb_tip" in hand
    assert "<title>left_shoulder" in bodies


@pytest.mark.parametrize("name", KEYPOINTS)
def test_skeletons_join_all_points(name: str) -> None:
    """But for COCO's face, which hangs on nothing."""
    names, bones = KEYPOINTS[name]
    assert len(names) == len(set(names)) == int(name[-2:])
    reached = {0}
    for _ in names:
        reached |= {end for bone in bones if reached & set(bone) for end in bone}
    assert reached == set(range(5 if name == "coco17" else len(names)))
    assert {end for bone in bones for end in bone} == set(range(len(names)))


def test_a_lone_image_shares_nothing(hand: str) -> None:
    assert "What two images share" not in hand
    assert "Maps that a build of it keeps: depth." in hand
    for layer in ("alpha", "parts", "garments", "depth", "normals", "uv"):
        assert f"<b>{layer}</b>" in hand  # shown, kept or not


def test_the_scene_can_be_taken_from_the_page(bodies: str, assets: Path) -> None:
    texts = re.findall(r"<pre>(.*?)</pre>", bodies, re.DOTALL)
    studio = Studio(assets, dataclasses.replace(BODIES.render, labels=LABELS))
    assert [Scene.from_json(html.unescape(text)) for text in texts] == [studio.scene(0, 1), studio.scene(0, 2)]


def test_text_is_escaped(bodies: str) -> None:
    assert "<title>scenes of &lt;b&gt;&amp;tiny</title>" in bodies
    assert "<b>&tiny" not in bodies
    assert "the &lt;command&gt; --first 1 --scenes 1" in bodies
    assert (
        door("pipeline", "rerender", "OUT", "synthetic/train/s000001/00000000/v0/p0", "--out", "picture.png") in bodies
    )


def test_colours_differ() -> None:
    colours = cv2.cvtColor(_palette()[None, :26], cv2.COLOR_RGB2LAB)[0].astype(float)
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=-1) + 1e3 * np.eye(26)
    assert (_palette()[0] == 0).all()
    assert apart.min() > 30


def test_scenes_that_are_shown() -> None:
    assert chosen_scenes(BODIES, first=0, num=8, where="") == range(3)
    assert chosen_scenes(BODIES, first=1, num=1, where="") == range(1, 2)
    for first, num in ((3, 1), (-1, 1), (0, 0)):
        with pytest.raises(RecipeError, match=r"(?s)no scene can be shown.*scenes 0 to 2"):
            chosen_scenes(BODIES, first=first, num=num, where="")
    with pytest.raises(RecipeError, match=r"(?s)recipe raw renders nothing.*synthetic_hand"):
        chosen_scenes(BuildRecipe(name="raw", sources=(SourceRecipe(kind="videos"),)), first=0, num=1, where="")


def test_the_door(assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gallery", "--recipe", "humbi", "--out", str(tmp_path)]) == 2
    assert "RecipeError: recipe humbi renders nothing" in capsys.readouterr().err
    assert main(["gallery", "--recipe", "synthetic", "--first", "48", "--out", str(tmp_path)]) == 2
    assert "scenes 0 to 47" in capsys.readouterr().err
    assert main(["gallery", "--assets", str(tmp_path / "none"), "--out", str(tmp_path)]) == 2
    assert "SyntheticError" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_page_that_cannot_be_written(assets: Path, tmp_path: Path, bodies: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SyntheticError, match=r"(?s)the page cannot be written.*--out"):
        write_gallery(tmp_path / "file/gallery.html", BODIES, assets, range(1, 2), lambda *_: None, command="")
