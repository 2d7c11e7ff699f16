"""Pictures and files of a predicted mesh: drawn over its image by pyrender on EGL, and as glb.

OpenGL is opened by the first drawing and never closed: pyrender would close the display of everybody else in the process
with it. Use it from one thread.

Shape letters: `H W` image, `X` vertices, `F` faces.
"""

import importlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from manifests.errors import TrainingError

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

_GL_FROM_CAMERA = np.array([1.0, -1.0, -1.0])  # OpenGL looks along -z with y up
_COLOUR = (0.45, 0.55, 0.8, 1.0)
_LIGHTS_RAD = (-0.9, 0.5)  # from the gaze to the side
_NEAR_M = 0.05


def draw_mesh(image_HW3: Bytes, verts_X3: Floats, faces_F3: Ints, *, focal_px: float) -> Bytes:
    """Draw a mesh over an image.

    Where OpenGL without a screen (EGL) is not there, the faces are painted from far to near, which looks coarser.

    Args:
        image_HW3: uint8.
        verts_X3: metres, in the axes of a camera that looks at the image's centre.
        faces_F3: vertices of each face, counterclockwise as seen from outside.
        focal_px: of that camera.

    Returns:
        (H, W, 3) uint8.
    """
    with _leaving_opengl():
        opened = _renderer()
    if opened is None:
        return paint_mesh(image_HW3, verts_X3, faces_F3, focal_px=focal_px)
    pyrender, renderer = opened
    height, width = image_HW3.shape[:2]
    scene = pyrender.Scene(bg_color=np.zeros(4), ambient_light=(0.2, 0.2, 0.2))
    material = pyrender.MetallicRoughnessMaterial(
        baseColorFactor=_COLOUR, metallicFactor=0.0, roughnessFactor=0.7, alphaMode="OPAQUE", doubleSided=True
    )
    verts_X3 = verts_X3 * _GL_FROM_CAMERA
    primitive = pyrender.Primitive(
        positions=verts_X3.astype(np.float32),
        normals=_normals(verts_X3, faces_F3).astype(np.float32),
        indices=faces_F3.astype(np.uint32),
        material=material,
        mode=4,
    )
    scene.add(pyrender.Mesh(primitives=[primitive]))
    near_m, far_m = float((-verts_X3[:, 2]).min()) / 2, float(np.abs(verts_X3[:, 2]).max()) + 10.0
    camera = pyrender.IntrinsicsCamera(
        focal_px, focal_px, width / 2, height / 2, znear=max(_NEAR_M, near_m), zfar=far_m
    )
    scene.add(camera, pose=np.eye(4))
    for angle in _LIGHTS_RAD:
        cos, sin = np.cos(angle), np.sin(angle)
        pose = np.array([[cos, 0, sin, 0], [0, 1, 0, 0], [-sin, 0, cos, 0], [0, 0, 0, 1.0]])
        scene.add(pyrender.DirectionalLight(intensity=1.7), pose=pose)
    renderer.viewport_width, renderer.viewport_height = width, height
    with _leaving_opengl():
        rgba, _depth = renderer.render(scene, pyrender.RenderFlags.RGBA)
    share = rgba[..., 3:].astype(np.float32) / 255.0
    return np.asarray(rgba[..., :3] * share + image_HW3 * (1.0 - share) + 0.5).astype(np.uint8)


def paint_mesh(image_HW3: Bytes, verts_X3: Floats, faces_F3: Ints, *, focal_px: float) -> Bytes:
    """Draw a mesh over an image without OpenGL: as `draw_mesh`, face by face."""
    height, width = image_HW3.shape[:2]
    depth_X = np.maximum(verts_X3[:, 2:], _NEAR_M)
    seen_X2 = verts_X3[:, :2] / depth_X * focal_px + [(width - 1) / 2, (height - 1) / 2]
    corners_F33 = verts_X3[faces_F3]
    across_F3 = np.cross(corners_F33[:, 1] - corners_F33[:, 0], corners_F33[:, 2] - corners_F33[:, 0])
    shown_F = np.flatnonzero((across_F3 * corners_F33[:, 0]).sum(axis=1) < 0)
    order = shown_F[np.argsort(-depth_X[faces_F3[shown_F], 0].mean(axis=1), kind="stable")]
    normals_F3 = across_F3[order] / np.maximum(np.linalg.norm(across_F3[order], axis=1, keepdims=True), 1e-12)
    towards_23 = np.array([[np.sin(angle), 0.0, -np.cos(angle)] for angle in _LIGHTS_RAD])
    light_F = 0.35 + 0.45 * np.clip(normals_F3 @ towards_23.T, 0, None).sum(axis=1)
    colours_F3 = np.clip(255 * np.sqrt(np.array(_COLOUR[:3]) * light_F[:, None]), 0, 255)
    points_F32 = np.rint(np.clip(seen_X2[faces_F3[order]], -1e4, 1e4) * 16).astype(np.int32)
    drawn = np.ascontiguousarray(image_HW3).copy()
    for points, colour in zip(points_F32, colours_F3.tolist(), strict=True):
        cv2.fillConvexPoly(drawn, points, colour, shift=4)
    return drawn


def from_the_side(verts_X3: Floats) -> Floats:
    """Turn a mesh by a quarter around the vertical through its middle: what is left goes to the front."""
    middle = (verts_X3.min(axis=0) + verts_X3.max(axis=0)) / 2
    return np.asarray((verts_X3 - middle)[:, [2, 1, 0]] * [-1.0, 1.0, 1.0] + middle)


def write_glb(path: Path, verts_X3: Floats, faces_F3: Ints) -> None:
    """Write a mesh as binary glTF, y up, metres; it faces who looks at it.

    Args:
        path: a .glb.
        verts_X3: in a camera's axes.
        faces_F3: vertices of each face.

    Raises:
        TrainingError: it cannot be written.
    """
    import trimesh

    data = trimesh.Trimesh(verts_X3 * _GL_FROM_CAMERA, faces_F3, process=False).export(file_type="glb")
    assert isinstance(data, bytes)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise TrainingError(f"the mesh cannot be written: {error}", where=path, hint="choose another file") from error


def _normals(verts_X3: Floats, faces_F3: Ints) -> Floats:
    a, b, c = (verts_X3[faces_F3[:, corner]] for corner in range(3))
    across_F3 = np.cross(b - a, c - a)
    normals_X3 = np.zeros_like(verts_X3)
    for axis in range(3):
        for corner in range(3):
            normals_X3[:, axis] += np.bincount(faces_F3[:, corner], across_F3[:, axis], len(verts_X3))
    return np.asarray(normals_X3 / np.maximum(np.linalg.norm(normals_X3, axis=1, keepdims=True), 1e-12))


@contextmanager
def _leaving_opengl() -> Iterator[None]:
    """Leave whoever drew before in possession of OpenGL: opening a renderer takes it, too."""
    egl = sys.modules.get("OpenGL.EGL")  # not loaded: nobody drew
    display, context = (egl.eglGetCurrentDisplay(), egl.eglGetCurrentContext()) if egl else (None, None)
    try:
        yield
    finally:
        if egl and context:
            egl.eglMakeCurrent(display, egl.EGL_NO_SURFACE, egl.EGL_NO_SURFACE, context)


@cache
def _renderer() -> tuple[Any, Any] | None:
    """The module pyrender and its one renderer in this process; None where it cannot be."""
    os.environ.setdefault("PYOPENGL_PLATFORM", "egl")
    os.environ.setdefault("LP_NUM_THREADS", "1")
    vars(np).setdefault("infty", np.inf)  # pyrender 0.1.45 was written for numpy 1
    logging.getLogger("OpenGL.acceleratesupport").setLevel(logging.WARNING)  # that it is not there is nobody's concern
    try:
        pyrender: Any = importlib.import_module("pyrender")
        return pyrender, pyrender.OffscreenRenderer(64, 64)
    except Exception as error:  # noqa: BLE001 - what fails depends on the driver; a picture is not worth a run
        logger.warning("pictures of meshes are coarser, as OpenGL without a screen cannot be opened: %s", error)
        return None
