"""Scores of classifiers.

Shape letters: `B` images, `C` classes.
"""

import numpy as np
import numpy.typing as npt


def top1(logits_BC: npt.ArrayLike, labels_B: npt.ArrayLike) -> float:
    """Share of images whose largest logit is that of their label; the first of equal ones is the prediction.

    Raises:
        ValueError: shapes do not match, a label is no class, or a logit is NaN.
    """
    logits, labels = _checked(logits_BC, labels_B)
    return float((logits.argmax(axis=1) == labels).mean())


def best_view_top1(logits_BC: npt.ArrayLike, labels_B: npt.ArrayLike, instances_B: npt.ArrayLike) -> float:
    """Share of instances that are right in the view the classifier is surest of: GUN-71's "Best View".

    How sure it is: the softmax of its prediction. The first of equally sure views counts.

    Args:
        logits_BC: of every view.
        labels_B: of every view.
        instances_B: which instance each view shows, any integers or strings.

    Raises:
        ValueError: as `top1`; or the views of an instance have different labels.
    """
    logits, labels = _checked(logits_BC, labels_B)
    instances = np.asarray(instances_B)
    if instances.shape != labels.shape:
        raise ValueError(f"{instances.shape} instances for {labels.shape} labels")
    sure_B = 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
    right = []
    for instance in np.unique(instances):
        views = np.flatnonzero(instances == instance)
        if len(np.unique(labels[views])) > 1:
            raise ValueError(f"the views of instance {instance} have different labels")
        best = views[sure_B[views].argmax()]
        right.append(logits[best].argmax() == labels[best])
    return float(np.mean(right))


def _checked(
    logits_BC: npt.ArrayLike, labels_B: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    logits, labels = np.asarray(logits_BC, dtype=np.float64), np.asarray(labels_B)
    if logits.ndim != 2 or not logits.size or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits must be (images, classes) with a label each, not {logits.shape} and {labels.shape}")
    if np.isnan(logits).any():
        raise ValueError("a logit is NaN")
    if not np.isin(labels, range(logits.shape[1])).all():
        raise ValueError(f"a label is none of the {logits.shape[1]} classes")
    return logits, labels
