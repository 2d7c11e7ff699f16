"""From stored images to the network's input: crop, colour jitter and normalisation, each pair by its place in the stream.

Brightness, contrast and saturation are affine in RGB, and contrast needs only the mean colour of the crop, so the whole chain,
in any order, is one 3x4 matrix an image. The price: values are clamped once at the end instead of after each step.
Shape letters: `B` pairs, `T` patches along a side, `N` patches of an image, `I` images of a pair (target, reference, further references), `F` further
references, `C H W` image, `U` numbers drawn for a pair.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manifests.seeds import seed_for
from training.batch import STORED_PX, Batch
from training.masking import patch_coverage
from training.noise import uniform_noise

MEAN_RGB = (0.485, 0.456, 0.406)
STD_RGB = (0.229, 0.224, 0.225)
GRAY_RGB = (0.299, 0.587, 0.114)
"""ITU-R 601-2 luma, the gray of both contrast and saturation."""

_DRAWS_PER_IMAGE = 8  # offset x, y; three factors; three keys whose order is the order of the steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """How training images are varied; evaluation takes the centre crop and leaves colours alone.

    Args:
        crop_px: side of the crop, taken at random and independently from target and reference.
        jitter: brightness, contrast and saturation are each multiplied by U(1 - jitter, 1 + jitter), in random order and
            independently for target and reference.
        swap_roles: let target and reference change places in half of the pairs.
        flip: mirror both images together in half of the pairs; hands change sides, so this is off unless asked for.

    Raises:
        ValueError: the crop does not fit the stored image, or the jitter is not in [0, 1).
    """

    crop_px: int = 224
    jitter: float = 0.4
    swap_roles: bool = True
    flip: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.crop_px <= STORED_PX:
            raise ValueError(f"crop_px {self.crop_px} does not fit a stored image of {STORED_PX} px")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter must lie in [0, 1), not {self.jitter}")


@dataclass(frozen=True)
class Views:
    """Input of the network.

    Args:
        target_BCHW: float32 on the device, normalised by the mean and deviation of ImageNet.
        reference_BCHW: the same for the reference.
        coverage_BN: float32 on the host, share of each patch of the target that the person covers.
        further_BFCHW: further references, where there are any.
    """

    target_BCHW: Tensor
    reference_BCHW: Tensor
    coverage_BN: npt.NDArray[np.float32]
    further_BFCHW: Tensor | None = None


@dataclass(frozen=True)
class Draws:
    """Random choices for each pair; images are target, reference, after these changed places, and further references.

    Args:
        swap_B: bool, roles change places.
        flip_B: bool, all images are mirrored.
        offset_xy_BI2: int64, top left pixel of each image's crop.
        factor_BI3: factors of brightness, contrast and saturation of each image.
        order_BI3: int64, the steps of each image in the order of their application.
    """

    swap_B: npt.NDArray[np.bool_]
    flip_B: npt.NDArray[np.bool_]
    offset_xy_BI2: npt.NDArray[np.int64]
    factor_BI3: npt.NDArray[np.float64]
    order_BI3: npt.NDArray[np.int64]


def sample_draws(
    augmentation: Augmentation, index_B: npt.NDArray[np.int64], *, seed: int, num_images: int = 2
) -> Draws:
    """Draw each pair's choices from (seed, place): the same on any worker, in any batch, whatever images come after.

    Args:
        augmentation: what to vary.
        index_B: places in the stream.
        seed: seed of the run.
        num_images: images of a pair, `I`.
    """
    noise_BU = uniform_noise(seed_for(seed, "augment"), index_B, 2 + num_images * _DRAWS_PER_IMAGE)
    image_BIU = noise_BU[:, 2:].reshape(len(index_B), num_images, _DRAWS_PER_IMAGE)
    room_px = STORED_PX - augmentation.crop_px
    return Draws(
        swap_B=(noise_BU[:, 0] < 0.5) & augmentation.swap_roles,
        flip_B=(noise_BU[:, 1] < 0.5) & augmentation.flip,
        offset_xy_BI2=np.floor(image_BIU[..., :2] * (room_px + 1)).astype(np.int64),
        factor_BI3=1 + augmentation.jitter * (2 * image_BIU[..., 2:5] - 1),
        order_BI3=np.argsort(image_BIU[..., 5:], axis=-1),
    )


def fixed_draws(augmentation: Augmentation, num_pairs: int, num_images: int = 2) -> Draws:
    """Choices for evaluation: roles as stored, centre crop, colours as they are."""
    return Draws(
        swap_B=np.zeros(num_pairs, dtype=np.bool_),
        flip_B=np.zeros(num_pairs, dtype=np.bool_),
        offset_xy_BI2=np.full((num_pairs, num_images, 2), (STORED_PX - augmentation.crop_px) // 2, dtype=np.int64),
        factor_BI3=np.ones((num_pairs, num_images, 3)),
        order_BI3=np.tile(np.arange(3), (num_pairs, num_images, 1)),
    )


def prepare(
    batch: Batch,
    augmentation: Augmentation,
    *,
    image_px: int,
    side: int,
    device: torch.device,
    seed: int | None,
) -> Views:
    """Crop, shrink, vary and normalise a batch.

    Args:
        batch: as the stream gives it.
        augmentation: how to vary; only its crop matters in evaluation.
        image_px: side of the network's input, a divisor of the crop: pixels are averaged when it is smaller.
        side: patches along a side, `T`.
        device: where the images go; only uint8 crops travel.
        seed: seed of the run, or None in evaluation.
    """
    num_images = 2 + (0 if batch.further_BFHWC is None else batch.further_BFHWC.shape[1])
    draws = (
        fixed_draws(augmentation, len(batch), num_images)
        if seed is None
        else sample_draws(augmentation, batch.index_B, seed=seed, num_images=num_images)
    )
    views = []
    for role in range(num_images):
        crops_BCHW = _crops(batch, draws, role, crop_px=augmentation.crop_px, image_px=image_px)
        images_BCHW = torch.from_numpy(crops_BCHW).to(device).float()
        matrix_B33, shift_B3 = (
            _identity(images_BCHW)
            if seed is None
            else jitter_matrices(
                images_BCHW.mean(dim=(2, 3)),
                torch.from_numpy(draws.factor_BI3[:, role]).to(device, torch.float32),
                torch.from_numpy(draws.order_BI3[:, role]).to(device),
            )
        )
        views.append(apply_colours(images_BCHW, matrix_B33, shift_B3))
    cells_BGG = np.where(draws.swap_B[:, None, None], batch.reference_cells_BGG, batch.target_cells_BGG)
    coverage_BN = patch_coverage(cells_BGG, draws.offset_xy_BI2[:, 0], crop_px=augmentation.crop_px, side=side)
    coverage_BTT = coverage_BN.reshape(-1, side, side)
    coverage_BTT = np.where(draws.flip_B[:, None, None], coverage_BTT[:, :, ::-1], coverage_BTT)
    further_BFCHW = torch.stack(views[2:], dim=1) if num_images > 2 else None
    return Views(views[0], views[1], coverage_BTT.reshape(-1, side**2), further_BFCHW)


def jitter_matrices(mean_B3: Tensor, factor_B3: Tensor, order_B3: Tensor) -> tuple[Tensor, Tensor]:
    """Fold brightness, contrast and saturation into one affine map of colours, in the scale of the input.

    Convention: step 0 scales by the factor; step 1 blends with the mean gray of the image as it is by then; step 2 blends
    each pixel with its own gray. A factor of 1 changes nothing.

    Args:
        mean_B3: mean colour of each image.
        factor_B3: factors of brightness, contrast and saturation.
        order_B3: int64, the steps in the order of their application.

    Returns:
        matrix (B, 3, 3) and shift (B, 3): colour -> matrix @ colour + shift.
    """
    gray_3 = mean_B3.new_tensor(GRAY_RGB)
    eye_33 = torch.eye(3, device=mean_B3.device, dtype=mean_B3.dtype)
    matrix_B33 = eye_33.expand(len(mean_B3), 3, 3)
    shift_B3 = torch.zeros_like(mean_B3)
    for step in range(3):
        kind_B1 = order_B3[:, step, None]
        factor_B1 = factor_B3.gather(1, kind_B1)
        # Contrast scales like brightness and then adds the rest of the mean gray.
        mean_now_B3 = (matrix_B33 @ mean_B3[..., None])[..., 0] + shift_B3
        gray_B1 = (mean_now_B3 @ gray_3)[:, None]
        added_B1 = torch.where(kind_B1 == 1, (1 - factor_B1) * gray_B1, 0.0)
        blend_B33 = factor_B1[..., None] * eye_33 + torch.where(kind_B1 == 2, 1 - factor_B1, 0.0)[..., None] * gray_3
        matrix_B33 = blend_B33 @ matrix_B33
        shift_B3 = (blend_B33 @ shift_B3[..., None])[..., 0] + added_B1
    return matrix_B33, shift_B3


def apply_colours(images_BCHW: Tensor, matrix_B33: Tensor, shift_B3: Tensor) -> Tensor:
    """Map the colours of images in 0..255, clamp to that range, and normalise.

    Returns:
        (B, C, H, W) float32 normalised images.
    """
    mean_3, std_3 = images_BCHW.new_tensor(MEAN_RGB), images_BCHW.new_tensor(STD_RGB)
    matrix_B33 = matrix_B33 / (255 * std_3[:, None])
    shift_B3 = (shift_B3 / 255 - mean_3) / std_3
    flat_B3X = torch.baddbmm(shift_B3[..., None], matrix_B33, images_BCHW.flatten(2))
    low_31, high_31 = (-mean_3 / std_3)[:, None], ((1 - mean_3) / std_3)[:, None]
    return flat_B3X.clamp_(low_31, high_31).view_as(images_BCHW)


def to_pixels(images_BCHW: Tensor) -> npt.NDArray[np.uint8]:
    """Undo the normalisation, to look at images.

    Returns:
        (B, H, W, 3) uint8.
    """
    mean_311, std_311 = (images_BCHW.new_tensor(v)[:, None, None] for v in (MEAN_RGB, STD_RGB))
    scaled_BCHW = ((images_BCHW * std_311 + mean_311) * 255).round().clamp(0, 255)
    pixels: npt.NDArray[np.uint8] = scaled_BCHW.permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()
    return pixels


def black(images_BCHW: Tensor) -> Tensor:
    """All-black images in normalised colours: a reference that tells nothing."""
    mean_3, std_3 = images_BCHW.new_tensor(MEAN_RGB), images_BCHW.new_tensor(STD_RGB)
    return (-mean_3 / std_3)[:, None, None].expand_as(images_BCHW)


def _crops(batch: Batch, draws: Draws, role: int, *, crop_px: int, image_px: int) -> npt.NDArray[np.uint8]:
    """Cut one image of each pair, colours first; 0 is the target, 1 the reference, after these changed places."""
    stored = [batch.target_BHWC, batch.reference_BHWC]
    if batch.further_BFHWC is not None:
        stored += list(batch.further_BFHWC.swapaxes(0, 1))
    crops_BCHW = np.empty((len(batch), 3, image_px, image_px), dtype=np.uint8)
    for i, crop_CHW in enumerate(crops_BCHW):
        x, y = draws.offset_xy_BI2[i, role]
        window = stored[role ^ int(role < 2 and draws.swap_B[i])][i, y : y + crop_px, x : x + crop_px]
        if crop_px != image_px:
            window = np.asarray(cv2.resize(window, (image_px, image_px), interpolation=cv2.INTER_AREA), dtype=np.uint8)
        crop_CHW[...] = (window[:, ::-1] if draws.flip_B[i] else window).transpose(2, 0, 1)
    return crops_BCHW


def _identity(images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    eye_33 = torch.eye(3, device=images_BCHW.device)
    return eye_33.expand(len(images_BCHW), 3, 3), torch.zeros(len(images_BCHW), 3, device=images_BCHW.device)
