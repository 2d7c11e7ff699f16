"""Renders a scene: colour and all exact labels of a view, from one pass of OpenGL.

The pass draws at twice the size: each sample knows its colour, its garment, the person's triangle and the depth. Pictures are
averages of samples; labels follow from the triangles by geometry, so they are exact and cost no second pass.

Shape letters: H W image, X vertices, T triangles shown, J joints, P pixels of the silhouette.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.errors import SyntheticError
from manifests.geometry import project
from manifests.seeds import rng_for
from synthetic.camera import crop_intrinsics
from synthetic.drawn import Drawn, root_light
from synthetic.figure import BodyFigure, Dressed, Figure, Posed
from synthetic.gl import Stage, shared_gl
from synthetic.labels import Seen, in_camera, joint_visibility, seen_surface, silhouette_box
from synthetic.models.body import BodyModel
from synthetic.motion.library import Clip
from synthetic.pixels import Drawing, pixels_of
from synthetic.places.backdrops import Backdrops
from synthetic.places.room import Surface, build_props, build_room, floor_shadow
from synthetic.scene import Scene
from synthetic.sensor import expose

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

_INSIDE = 0.45  # of the light that meets its outside reaches the inside of a skirt, of hair, of a sleeve
_ROOT = np.rint(255.0 * np.sqrt(np.arange(256) / 255.0)).astype(np.uint8)  # a gamma of 2, as the shader has it


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One rendered image and its exact labels.

    Attributes:
        rgb: (H, W, 3) uint8.
        alpha: (H, W) uint8, share of each pixel that the person covers, 255 all.
        silhouette: (H, W) bool, the pixels that the person covers by half or more.
        garments: (H, W) uint8, index into `Figure.garments`, 0 outside the silhouette.
        parts: (H, W) uint8, 1 + the joint that moves the surface most (SMPL's 24 parts), 0 outside.
        depth_m: (H, W) float32 along the gaze, metres; 0 where nothing is.
        normals: (H, W, 3) float32, unit, in the camera's axes; 0 outside.
        uv: (H, W, 2) float32, texture coordinates of the figure, origin at the lower left; -1 outside.
        seen: the surface point of each pixel of the silhouette.
        intrinsics: (3, 3) K, pixels; pixel (0, 0) is the centre of the first pixel.
        camera_from_world: (4, 4).
        joints_m: (J, 3) joints in the world, metres.
        joints_xy_px: (J, 2) their projections.
        joint_visible: (J,) bool, nothing but the joint's own limb is in front of it.
        keypoints_px: of each further set (K, 3): x, y, 1 visible or 0 not.
        parameters: the model's, in the camera's axes: with them the naked model lies where the picture shows it.
        box_xyxy_px: (4,) edges of the silhouette; zeros if it is empty.
        time_s: seconds since the motion's start.
        posed: the figure in the world, shared by all views of the instant.
        dressed: what it wears, shared by all views of the scene.
    """

    rgb: Bytes
    alpha: Bytes
    silhouette: Bools
    garments: Bytes
    parts: Bytes
    depth_m: Floats32
    normals: Floats32
    uv: Floats32
    seen: Seen
    intrinsics: Floats
    camera_from_world: Floats
    joints_m: Floats
    joints_xy_px: Floats
    joint_visible: Bools
    keypoints_px: Mapping[str, Floats]
    parameters: Mapping[str, Floats]
    box_xyxy_px: Floats
    time_s: float
    posed: Posed
    dressed: Dressed


@dataclass(slots=True)
class _Now:
    """What neighbouring views share: of one person, one room, one instant."""

    look: object = None
    dressed: Dressed | None = None
    uvs_K2: Floats32 = field(default_factory=lambda: np.zeros((0, 2), dtype=np.float32))
    drawn: tuple[Drawn, ...] = ()
    person_texture: Any = None
    place: object = None
    walls: list[Any] | None = None
    floors: list[tuple[Surface, Any]] = field(default_factory=list)
    shadow: Bytes | None = None
    moment: object = None
    posed: Posed | None = None
    surface_K5: Floats32 = field(
        default_factory=lambda: np.zeros((0, 5), dtype=np.float32)
    )  # normal and uv of each corner
    stage: Stage | None = None


class Renderer:
    """Renders views of scenes with one figure; keeps what neighbouring views share.

    Cheapest in the order scene, instant, view: clothes are drawn once per person, the room once per scene, the pose once per
    instant.

    Args:
        figure: whom to render.
        backdrops: where scenes with a backdrop find it.

    Raises:
        SyntheticError: OpenGL without a screen (EGL) is not there.
    """

    def __init__(self, figure: Figure, backdrops: Backdrops | None = None) -> None:
        self._gl = shared_gl()
        self.figure = figure
        self._backdrops = backdrops
        self._now = _Now()

    @classmethod
    def of_body(cls, body: BodyModel, clips: Mapping[str, Clip]) -> "Renderer":
        """A renderer of dressed bodies that move by clips."""
        return cls(BodyFigure(body, clips))

    @property
    def device(self) -> str:
        """What OpenGL says it runs on, as "llvmpipe (LLVM 15.0.6, 256 bits) | 4.5 (Core Profile) Mesa 22.3.6"."""
        return self._gl.device

    def render(self, scene: Scene, *, instant: int, view: int) -> View:
        """Render one image.

        Args:
            scene: what to render.
            instant: index into `scene.phases`.
            view: index into `scene.cameras`.

        Returns:
            The image and its labels; equal arguments give equal bytes, in any process and order.

        Raises:
            SyntheticError: the scene names a clip that was not given.
            IndexError: there is no such instant or view.
        """
        camera = scene.cameras[view]
        dressed, posed, stage = self._set(scene, instant)
        intrinsics, pose = crop_intrinsics(camera, posed.framed_M3, scene.image_px), camera.camera_from_world
        drawing = stage.draw(intrinsics, pose, scene.image_px, supersampling=scene.supersampling)
        pixels = pixels_of(self._before_backdrop(drawing, scene, view, intrinsics), scene.image_px)
        rgb, depth_m, silhouette = pixels.rgb, pixels.depth_m, pixels.alpha > 127
        if scene.sensor is not None:
            rgb = expose(rgb, scene.sensor, rng_for(scene.sensor.seed, "sensor", instant, view))
        seen = seen_surface(pixels, posed.verts_X3, dressed.verts_T3, intrinsics @ pose[:3])
        at = seen.rows * scene.image_px + seen.columns
        depth_m.ravel()[at] = seen.depth_P
        carried_P5 = seen.carry(self._now.surface_K5, dressed.triangles_T3)
        normals_P3, uv_P2 = carried_P5[:, :3] @ pose[:3, :3].T.astype(np.float32), carried_P5[:, 3:]
        inside = (seen.triangles >= dressed.num_closed) & (normals_P3[:, 2] > 0)  # of a skirt, or the back of hair
        length_P = np.sqrt(np.einsum("pc,pc->p", normals_P3, normals_P3))
        normals_P3 /= (np.where(inside, -1.0, 1.0) * np.maximum(length_P, 1e-9))[:, None]
        texture = dressed.texture_SS4
        column, row = np.clip(uv_P2.T * len(texture), 0, len(texture) - 1).astype(np.int64)
        points = {"": posed.joints_J3, **posed.keypoints}
        xy_px, along_m = project(np.concatenate(list(points.values())), intrinsics, pose)
        visible = joint_visibility(xy_px, along_m, depth_m, silhouette, under_m=self.figure.limb_m)
        joints, *sets = np.split(
            np.column_stack([xy_px, visible]), np.cumsum([len(some) for some in points.values()])[:-1]
        )
        return View(
            rgb=rgb,
            alpha=pixels.alpha,
            silhouette=silhouette,
            garments=_spread(at, silhouette, texture[row, column, 3], 0),
            parts=_spread(at, silhouette, self.figure.part_F[dressed.faces_T[seen.triangles]], 0),
            depth_m=depth_m,
            normals=_spread(at, silhouette, normals_P3, 0),
            uv=_spread(at, silhouette, uv_P2, -1),
            seen=seen,
            intrinsics=intrinsics,
            camera_from_world=pose,
            joints_m=posed.joints_J3,
            joints_xy_px=joints[:, :2],
            joint_visible=joints[:, 2] > 0,
            keypoints_px=dict(zip(posed.keypoints, sets, strict=True)),
            parameters=in_camera(posed.parameters, posed.root_3, pose),
            box_xyxy_px=silhouette_box(silhouette),
            time_s=posed.time_s,
            posed=posed,
            dressed=dressed,
        )

    def _set(self, scene: Scene, instant: int) -> tuple[Dressed, Posed, Stage]:
        """Dress, pose and light what the view before did not have."""
        now = self._now
        look = scene.look if scene.hand is None else (scene.hand.look, scene.side, scene.betas)
        if now.dressed is None or now.look != look:
            now.dressed, now.look, now.moment = self.figure.dress(scene), look, None
            now.uvs_K2 = self.figure.uvs_U2[now.dressed.corners_K2[:, 1]]
            now.drawn = Drawn.of(now.dressed)
            now.person_texture = self._gl.texture(now.dressed.texture_SS4[..., :3], tiles=False)
        place = (scene.room, scene.backdrop, scene.occluders, scene.light)
        strange = scene.backdrop is not None  # which way the faces of a stranger's mesh look is not known
        if now.walls is None or now.place != place:
            surfaces = self._surroundings(scene)[::-1]  # first what stands before the rest, which is then drawn less
            now.walls = [self._gl.surface(s, scene.light.sh, double_sided=strange) for s in surfaces if not s.is_floor]
            now.floors = [(s, self._gl.texture(s.texture_HWC[::-1], tiles=True)) for s in surfaces if s.is_floor]
            now.place = place
        if now.posed is None or now.stage is None or now.moment != (scene, instant):
            posed = self.figure.pose(scene, instant, now.dressed)
            now.shadow = floor_shadow(posed.shown_N3, scene.light, scene.room, scene.occluders)
            shadow = self._gl.texture(_ROOT[now.shadow[::-1, :, 0]], tiles=False)
            floors = [
                self._gl.surface(floor, scene.light.sh, texture=texture, shadow=shadow, double_sided=strange)
                for floor, texture in now.floors
            ]
            normals_X3, vert_K = posed.normals_X3.astype(np.float32), now.dressed.corners_K2[:, 0]
            now.surface_K5 = np.concatenate([normals_X3.take(vert_K, axis=0), now.uvs_K2], axis=1)
            light_2X3 = root_light(normals_X3, scene.light.sh, np.multiply.outer((1.0, _INSIDE), posed.open_X))
            person, worn = (
                [
                    self._gl.mesh(
                        drawn.corners(posed.verts_X3, light_2X3, vert_K, now.uvs_K2),
                        drawn.triangles_D3,
                        now.person_texture,
                    )
                ]
                if len(drawn.triangles_D3)
                else []
                for drawn in now.drawn
            )
            stage = self._gl.stage(person, [*worn, *now.walls, *floors])
            now.posed, now.stage, now.moment = posed, stage, (scene, instant)
        return now.dressed, now.posed, now.stage

    def _surroundings(self, scene: Scene) -> list[Surface]:
        surfaces = [] if scene.room is None else build_room(scene.room)
        if scene.backdrop is not None:
            surfaces += self._files().surfaces(scene.backdrop)
        return surfaces + build_props(scene.occluders)

    def _before_backdrop(self, drawing: Drawing, scene: Scene, view: int, intrinsics: Floats) -> Drawing:
        """Fill with a photo what the drawing left open."""
        if scene.backdrop is None or not (empty := drawing.depth == 1).any():
            return drawing
        picture = self._files().picture(
            scene.backdrop,
            view=view,
            intrinsics=intrinsics,
            camera_from_world=scene.cameras[view].camera_from_world,
            image_px=scene.image_px,
            zoom=scene.supersampling,
            shadow_SSC=self._now.shadow,
        )
        rgba = drawing.rgba.copy()
        rgba[empty, :3] = picture[empty]
        return replace(drawing, rgba=rgba)

    def _files(self) -> Backdrops:
        if self._backdrops is None:
            raise SyntheticError(
                "the scene has a background from files, and none were given",
                where="scene",
                hint="give the folder of backgrounds of the recipe that the scene was drawn for",
            )
        return self._backdrops


def _spread(at: npt.NDArray[np.int64], like: Bools, values: npt.NDArray[Any], outside: int) -> npt.NDArray[Any]:
    """Values of the silhouette's pixels, counted row after row, as an image; `outside` elsewhere."""
    pixels = np.full((like.size, *values.shape[1:]), outside, dtype=values.dtype)
    row = np.dtype((np.void, pixels[0].nbytes))  # rows are moved faster as one thing than as numbers
    pixels.view(row).ravel()[at] = np.ascontiguousarray(values).view(row).ravel()
    return pixels.reshape(*like.shape, *values.shape[1:])
