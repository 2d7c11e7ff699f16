"""Motion clips: finds and loads them, whatever their format, and puts a person on the ground.

Read are DeepMimic's free clips (`humanoid3d_*.txt`, see `deepmimic`), BVH, ASF with AMC (`mocap`, `retarget`) and both releases
of AMASS (`amass`).
"""

import fnmatch
import logging
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manifests.errors import SyntheticError
from synthetic.models.body import BodyModel
from synthetic.motion import amass, deepmimic
from synthetic.motion.amass import holds_shape, read_amass
from synthetic.motion.clip import Clip
from synthetic.motion.mocap import asf_of, read_amc, read_bvh
from synthetic.motion.retarget import retarget

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]

_FLIGHT_M = 0.15  # lower than this is a clip's inaccuracy, not a jump
_KEPT = 256  # clips in memory; a minute of motion is a megabyte
_HINT = f"give a folder of .bvh, .asf with .amc, AMASS .npz or humanoid3d_*.txt; of the last, {deepmimic.HINT}"


def find_clips(folder: Path) -> dict[str, Path]:
    """List the clips in a folder and below by name; other files are passed over.

    A name is the path below the folder without ending, prefix `humanoid3d_` and AMASS's `_poses` or `_stageii`: "walk",
    "ACCAD/Female1Walking_c3d/B1_stand_to_walk". AMASS's older names of subsets read as the newer, and one that lies in a folder of
    its own name once.

    Raises:
        SyntheticError: the folder holds none, or two of one name.
    """
    found: dict[str, Path] = {}
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        if path.suffix.lower() == ".npz" and holds_shape(path):
            logger.info("%s: passed over, it holds a person's shape and no motion", path)
        elif _is_clip(path):
            name = _name(path.relative_to(folder))
            if name in found:
                raise SyntheticError(
                    f"two motion clips are called {name}",
                    where=f"{found[name]} and {path}",
                    hint="keep one of them: the two releases of AMASS hold the same motions",
                )
            found[name] = path
    if not found:
        raise SyntheticError("there is no motion clip", where=folder, hint=_HINT)
    return found


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that a clip is read from: its own, and an AMC's skeleton."""
    return (path, asf_of(path)) if path.suffix.lower() == ".amc" else (path,)


def load_clip(path: Path, *, name: str | None = None) -> Clip:
    """Read a clip and turn it into SMPL's joints, about 30 instants a second.

    Args:
        path: the file.
        name: of the clip; by default from the file's name.

    Returns:
        The clip; joints that the file does not move stay at rest.

    Raises:
        SyntheticError: the file is missing, damaged, or none that is read.
    """
    name = _name(Path(path.name)) if name is None else name
    match path.suffix.lower():
        case ".txt":
            return deepmimic.read_deepmimic(path, name=name)
        case ".bvh":
            return retarget(read_bvh(path), name=name, where=path)
        case ".amc":
            return retarget(read_amc(path), name=name, where=path)
        case ".npz":
            return read_amass(path, name=name)
    raise SyntheticError(f"motion is not read from {path.suffix or 'such a file'}", where=path, hint=_HINT)


def choose_clips(names: Iterable[str], wanted: Iterable[str]) -> tuple[str, ...]:
    """The clips that names and patterns stand for, in the order in which they are wanted, each once.

    Args:
        names: of the clips that are there.
        wanted: names, or patterns as "ACCAD/*".

    Raises:
        SyntheticError: one of `wanted` stands for none.
    """
    there = sorted(names)
    chosen: dict[str, None] = {}
    for pattern in wanted:
        fitting = [pattern] if pattern in there else fnmatch.filter(there, pattern)
        if not fitting:
            raise SyntheticError(
                f"there is no motion clip {pattern!r}",
                where=f"clips: {', '.join(there[:20])}{' ...' if len(there) > 20 else ''}",
                hint="give the folder that holds it, or name other clips in the recipe",
            )
        chosen |= dict.fromkeys(fitting)
    return tuple(chosen)


class ClipLibrary(Mapping[str, Clip]):
    """Clips by name, each read when it is first asked for.

    Args:
        paths: the files, as `find_clips` lists them.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self.paths = dict(paths)
        self._load = lru_cache(maxsize=_KEPT)(lambda name: load_clip(self.paths[name], name=name))

    def __getitem__(self, name: str) -> Clip:
        """The clip; `SyntheticError` where its file is damaged."""
        return self._load(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __contains__(self, name: object) -> bool:
        return name in self.paths  # without reading it


def _is_clip(path: Path) -> bool:
    ending = path.suffix.lower()
    return ending in (".bvh", ".amc", ".npz") or (ending == ".txt" and path.name.startswith(deepmimic.PREFIX))


def _name(path: Path) -> str:
    parts = [amass.RENAMED.get(part, part) for part in path.parts[:-1]]
    parts = [part for place, part in enumerate(parts) if part not in parts[place - 1 : place]]
    stem = path.stem.removeprefix(deepmimic.PREFIX)
    if path.suffix.lower() == ".npz":
        stem = stem.removesuffix("_poses").removesuffix("_stageii")
    return "/".join((*parts, stem))


def place_on_ground(clip: Clip, body: BodyModel, betas_S: npt.ArrayLike, clip_index: int) -> Floats:
    """Translate one instant so that the person stands on y = 0, over the middle of the floor.

    The lowest point touches the ground, unless the clip itself leaves it: a jump keeps its height.

    Args:
        clip: the motion.
        body: the body it moves.
        betas_S: (10,) shape coefficients.
        clip_index: which instant of the clip.

    Returns:
        (3,) translation, metres.
    """
    verts_TX3, joints_TJ3 = body.pose(clip.pose_TJ3[clip_index, None], betas_S, np.zeros((1, 3)))
    return ground_shift(clip, clip_index, body, verts_TX3[0], joints_TJ3[0])


def ground_shift(
    clip: Clip,
    clip_index: int,
    body: BodyModel,
    verts_X3: npt.NDArray[np.floating],
    joints_J3: npt.NDArray[np.floating],
) -> Floats:
    """`place_on_ground` for a body that is posed already, with its pelvis at rest where the model has it; (3,) metres."""
    lowest = float(verts_X3[body.skin_vertices, 1].min())
    hip_m = float(body.joints_J3[1, 1] - body.template_X3[body.skin_vertices, 1].min())
    flight = float(clip.trans_T3[clip_index, 1]) * hip_m / clip.hip_m + lowest
    middle = (joints_J3.min(axis=0) + joints_J3.max(axis=0)).astype(np.float64) / 2.0
    return np.array([-middle[0], (flight if flight > _FLIGHT_M else 0.0) - lowest, -middle[2]])


__all__ = [
    "Clip",
    "ClipLibrary",
    "choose_clips",
    "files_of",
    "find_clips",
    "ground_shift",
    "load_clip",
    "place_on_ground",
]
