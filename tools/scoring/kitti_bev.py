"""KITTI road's bird's-eye view: the ground plane ahead of the car, seen from above.

The benchmark scores there, not in the image. The view shows x in -10..10 m (to the right) and z in
6..46 m (ahead) with 0.05 m a cell, 800 rows x 400 columns, the farthest row first (Fritsch et al.,
"A New Performance Measure and Evaluation Benchmark for Road Detection Algorithms", ITSC 2013; the
conventions are those of the development kit's BirdsEyeView.py).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_iter.errors import DataError
from data_iter.text_lists import read_lines

BEV_HW = (800, 400)
CELL = 0.05  # metres
X_RANGE = (-10, 10)  # metres, to the right of the camera
Z_RANGE = (6, 46)  # metres, ahead of the camera
SHAPES = {"P2": (3, 4), "R0_rect": (3, 3), "Tr_cam_to_road": (3, 4)}


def read_calibration(path: Path) -> np.ndarray:
    """Read a frame's calibration file as the mapping from the road plane into the image.

    Returns
    -------
    ndarray
        (3, 3) float64 that takes (x, z, 1) in metres to (u w, v w, w), where u is the column and v
        the row in the left colour image, both counted from 1: P2 * R0_rect * inv(Tr_cam_to_road)
        at height 0.

    Raises
    ------
    DataError
        The file or one of its matrices is missing or malformed.
    """
    fields = dict(line.text.split(":", 1) for line in read_lines(path) if ":" in line.text)
    matrices = {}
    for name, shape in SHAPES.items():
        if name not in fields:
            raise DataError(f"{path}: has no line '{name}:'")
        try:
            matrices[name] = np.array(fields[name].split(), np.float64).reshape(shape)
            if not np.isfinite(matrices[name]).all():
                raise ValueError
        except ValueError:
            count = shape[0] * shape[1]
            raise DataError(
                f"{path}: {name}: expected {count} numbers, found '{fields[name].strip()[:60]}'"
            ) from None
    rectify, road_from_camera = np.eye(4), np.eye(4)
    rectify[:3, :3] = matrices["R0_rect"]
    road_from_camera[:3] = matrices["Tr_cam_to_road"]
    try:
        projection = matrices["P2"] @ rectify @ np.linalg.inv(road_from_camera)
    except np.linalg.LinAlgError:
        raise DataError(f"{path}: Tr_cam_to_road: cannot be inverted") from None
    return projection[:, [0, 2, 3]]


def to_bev(picture: np.ndarray, calibration: np.ndarray) -> np.ndarray:
    """Look every cell of the bird's-eye view up in a perspective picture.

    Parameters
    ----------
    picture : ndarray
        (H, W) or (H, W, C), the camera image's size.
    calibration : ndarray
        From :func:`read_calibration`.

    Returns
    -------
    ndarray
        (800, 400) or (800, 400, C) of the same type; 0 where a cell's centre is outside the image.
    """
    height, width = picture.shape[:2]
    half = CELL / 2
    # float32 centres, as in the development kit: in float64 a few cells would fall on other pixels.
    x = np.arange(X_RANGE[0] + half, X_RANGE[1], CELL).astype(np.float32)
    z = np.arange(Z_RANGE[1] - half, Z_RANGE[0], -CELL).astype(np.float32)
    plane = np.stack([*np.meshgrid(x, z), np.ones(BEV_HW)]).reshape(3, -1)
    u, v, w = calibration @ plane
    with np.errstate(divide="ignore", invalid="ignore"):
        u, v = u / w, v / w
    inside = (u >= 1) & (u <= width) & (v >= 1) & (v <= height)
    bev = np.zeros((len(inside), *picture.shape[2:]), picture.dtype)
    bev[inside] = picture[v[inside].astype(np.intp) - 1, u[inside].astype(np.intp) - 1]
    return bev.reshape(*BEV_HW, *picture.shape[2:])
