"""Prove a build from its pixels: the code that `tests.support.honest` drew against what keys, pairs and cameras claim."""

import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa

from manifests.audit.findings import Severity
from manifests.audit.prove import audit
from manifests.geometry import project
from manifests.types import FrameKey, PairKind
from pipeline.executors import LocalExecutor
from pipeline.recipes import BuildRecipe
from pipeline.squares import Floats, Image
from pipeline.stage import run_stage
from pipeline.stages import stages
from tests.support.honest import Figure, Lens, draw, read_code, read_people
from tests.support.toy_stage import SilentWatcher

# Which code a crop was drawn with: instant, view and, if it matters, person; None: the fixture does not say.
Codes = Callable[[FrameKey], tuple[int, int] | tuple[int, int, int] | None]


def run_road(recipe: BuildRecipe, roots: dict[str, Path], out: Path) -> None:
    """Build in this process, without parser files and renders, and audit.

    Raises:
        AssertionError: the audit found an error.
    """
    verbs = stages(recipe, roots=roots, assets=out, out=out)
    for verb in ("ingest", "crop", "pairs", "shards"):
        run_stage(verbs[verb](), out, LocalExecutor(), SilentWatcher())
    errors = [finding for finding in audit(out, threads=2).findings if finding.severity is Severity.ERROR]
    assert not errors, "\n".join(f"{e.rule} in {e.where}: {e.message}" for e in errors)


def samples(out: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Every sample of every shard: its key, and its members by name."""
    for path in sorted((out / "shards").glob("*.tar")):
        found: dict[str, dict[str, bytes]] = {}
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, name = member.name.partition(".")
                file = tar.extractfile(member)
                assert file is not None, member.name
                found.setdefault(key, {})[name] = file.read()
        yield from found.items()


def prove_pairs(out: Path, *, codes: Codes | None = None, gray_views: Collection[str] = ()) -> Counter[str]:
    """Hold both pictures of every pair against what the pair claims.

    Args:
        out: the build.
        codes: the code each crop was drawn with; without it pictures are held only against each other.
        gray_views: views that were drawn gray.

    Returns:
        number of pairs by kind.

    Raises:
        AssertionError: a pair shows something else than it claims, or does not show it for sure; or there is no pair.
    """
    kinds: Counter[str] = Counter()
    for sample, members in samples(out):
        meta = json.loads(members["json"])
        keys = [FrameKey.parse(meta[role]["key"]) for role in ("target", "reference")]
        seen = []
        for role, key in zip(("target", "reference"), keys, strict=True):
            rgb = _decoded(members[f"{role}.jpg"])
            try:
                code = read_code(rgb, gray=key.view in gray_views)
            except ValueError as error:
                raise AssertionError(f"{sample}: {role}: {error}") from error
            drawn = codes(key) if codes else None
            if drawn is not None:
                shows = (code.instant, code.view, code.person)[: len(drawn)]
                assert shows == drawn, f"{sample}: {key} was drawn as {drawn}, shows {code}"
            seen.append(code)
        one, two = keys
        shown, other = seen
        told = f"{meta['kind']} {sample} shows {shown} and {other}"
        assert (one.source, one.split, one.sequence) == (two.source, two.split, two.sequence), f"{one} and {two}"
        assert (one.split, one.source) == (meta["split"], meta["source"]), sample
        assert one.track == two.track, f"{one} and {two}"
        assert shown.person == other.person, told
        if meta["kind"] == PairKind.CROSS_VIEW:
            assert one.instant == two.instant, f"{one} and {two}"
            assert one.view != two.view, f"{one} and {two}"
            assert shown.instant == other.instant, told
            assert shown.view != other.view, told
        else:
            assert meta["kind"] == PairKind.CROSS_POSE, sample
            assert one.view == two.view, f"{one} and {two}"
            assert one.instant != two.instant, f"{one} and {two}"
            assert shown.view == other.view, told
            assert shown.instant != other.instant, told
        kinds[meta["kind"]] += 1
    assert kinds, f"there is no pair below {out}"
    return kinds


def prove_projection(
    row: dict[str, Any],
    lens: Lens,
    points_m: Floats,
    *,
    world_from_fixture: Floats | None = None,
    within_px: float = 0.6,
) -> float:
    """Hold a row's camera against the lens that drew its picture, where OpenCV says that the lens sees the points.

    Args:
        row: of the frames table: intrinsics, camera_from_world, distortion.
        lens: the truth.
        points_m: (n, 3) in the fixture's world; those in the picture count, and four at least must be.
        world_from_fixture: (4, 4) rigid, from the fixture's world to the one that the row's pose maps from.
        within_px: farthest that a pixel may be off.

    Returns:
        the farthest, px.

    Raises:
        AssertionError: the row has no camera, or it sees the points elsewhere.
    """
    assert row["intrinsics"] is not None, f"{row['key']} has no intrinsics"
    assert row["camera_from_world"] is not None, f"{row['key']} has no pose"
    points, true = np.asarray(points_m, float), lens.pixels(points_m)
    depth = lens.in_camera(points)[:, 2]
    shown = (depth > 0) & (true > 0).all(axis=1) & (true < np.array(lens.size) - 1).all(axis=1)
    assert shown.sum() >= 4, f"only {shown.sum()} of {len(points)} points are in the picture of {row['key']}"
    if world_from_fixture is not None:
        points = points @ world_from_fixture[:3, :3].T + world_from_fixture[:3, 3]
    distortion = None if row["distortion"] is None else np.array(row["distortion"])
    pose = np.reshape(row["camera_from_world"], (4, 4))
    pixels, found_depth = project(points, np.reshape(row["intrinsics"], (3, 3)), pose, distortion)
    off = float(np.linalg.norm(pixels - true, axis=1)[shown].max())
    assert off <= within_px, f"{row['key']} sees the points up to {off:.2f} px from where they are"
    assert np.allclose(found_depth[shown], depth[shown], rtol=0.01), f"{row['key']}: the pose is not in metres"
    assert (row["width"], row["height"]) == lens.size, f"{row['key']} is not of the size {lens.size}"
    return off


def prove_cameras(
    frames: pa.Table,
    lens_of: Callable[[FrameKey], Lens | None],
    points_m: Floats,
    *,
    world_from_fixture: Floats | None = None,
    within_px: float = 0.6,
) -> int:
    """`prove_projection` for all frames; one whose lens is None must have no pose. Returns how many cameras were proven."""
    proven = 0
    for row in frames.to_pylist():
        lens = lens_of(FrameKey.parse(row["key"]))
        if lens is None:
            assert row["camera_from_world"] is None, f"{row['key']} has a pose that nobody wrote"
            continue
        prove_projection(row, lens, points_m, world_from_fixture=world_from_fixture, within_px=within_px)
        proven += 1
    return proven


def prove_crop_cameras(
    out: Path,
    figure_of: Callable[[FrameKey], Figure],
    *,
    world_from_fixture: Floats | None = None,
    gray_views: Collection[str] = (),
    least_overlap: float = 0.75,
) -> int:
    """Draw each stored crop's figure anew with the camera in the sample's JSON, and hold it against the crop's pixels.

    Args:
        out: the build.
        figure_of: whom the crop of a key shows.
        world_from_fixture: (4, 4) rigid, from the figure's world to the one that the poses map from.
        gray_views: views that were drawn gray.
        least_overlap: intersection over union of the drawn figure and the pixels of its colour.

    Returns:
        number of pictures proven; those without a camera, or of a lens that distorts, are passed over.

    Raises:
        AssertionError: the figure is elsewhere, or no picture has a camera.
    """
    proven = 0
    for _, members in samples(out):
        meta = json.loads(members["json"])
        for role in ("target", "reference"):
            crop, key = meta[role], FrameKey.parse(meta[role]["key"])
            if "intrinsics" not in crop or "camera_from_world" not in crop or "distorted" in crop["flags"]:
                continue
            rgb, figure = _decoded(members[f"{role}.jpg"]), figure_of(key)
            pose = np.reshape(crop["camera_from_world"], (4, 4))
            pose = pose if world_from_fixture is None else pose @ world_from_fixture
            lens = Lens(np.reshape(crop["intrinsics"], (3, 3)), pose, np.zeros(5), (rgb.shape[1], rgb.shape[0]))
            drawn = draw(lens, [figure], instant=0, view=0).mask(0)
            seen = read_people(rgb, gray=key.view in gray_views) == figure.person
            overlap = (drawn & seen).sum() / max(1, (drawn | seen).sum())
            assert overlap >= least_overlap, f"{key}: the crop's camera sees the figure elsewhere ({overlap:.2f})"
            proven += 1
    assert proven, f"no picture below {out} has a camera"
    return proven


def _decoded(jpeg: bytes) -> Image:
    return np.asarray(PIL.Image.open(io.BytesIO(jpeg)).convert("RGB"))
