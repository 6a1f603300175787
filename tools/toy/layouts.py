"""Generated streets as files of the three official layouts, and as an export of annotations.

A layout is a function of (training frames, seed, (height, width)). For each frame it yields
``{relative path: text, image array (RGB or one channel) or palette image}``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from configs.datasets import load_dataset
from tools.toy.canvas import BUS, CAR, EGO, PERSON, ROAD, Camera, Street
from tools.toy.scene import Drawing, draw_street

KITTI_SIZES = ((375, 1242), (376, 1241), (370, 1224), (370, 1226))
KITTI_FOCAL, KITTI_CENTRE, KITTI_HEIGHT = (
    721.5,
    (609.6, 172.9),
    1.65,
)  # pixels, x y pixels, metres
KITTI_BASELINES = (
    0.0,
    -387.6,
    44.9,
    -339.5,
)  # P0..P3: -focal * metres right of camera 0
# The three categories of the KITTI road benchmark: lanes, and whether they are marked.
KITTI_STREETS = {"um": (2, True), "umm": (4, True), "uu": (2, False)}
KITTI_VALID, KITTI_ROAD = (255, 0, 0), (255, 0, 255)  # RGB: R > 0 valid, B > 0 road

VOC_CLASSES = {
    BUS: 6,
    CAR: 7,
    PERSON: 15,
}  # Cityscapes id -> VOC class; all else is background
VOC_BORDER = 255


def split_sizes(layout: str, frames: int) -> dict[str, int]:
    """Frames of each split. val has 1/5 and test 1/15 as many as train; KITTI has no val.

    An export of annotations has no splits.
    """
    if layout == "coco":
        return {"annotated": frames}
    if layout == "kitti":
        return {"training": frames, "testing": max(3, frames // 5)}
    return {"train": frames, "val": max(1, frames // 5), "test": max(1, frames // 15)}


def camera(
    intrinsics: np.ndarray, hw: tuple[int, int], height: float, rng: np.random.Generator
) -> tuple[Camera, np.ndarray]:
    """A slightly tilted camera ``height`` metres above the road, and its (3, 4) camera-to-road.

    ``intrinsics`` (3, 4) projects camera coordinates (x right, y down, z forward) to pixels.
    """
    pitch, yaw, roll = rng.normal(0, (0.012, 0.02, 0.006))
    rotation, _ = cv2.Rodrigues(np.array([pitch, yaw, roll]))
    to_road = np.column_stack([rotation, [0, -height, 0]])
    to_camera = np.linalg.inv(np.vstack([to_road, [0, 0, 0, 1]]))
    return Camera(intrinsics @ to_camera, hw), to_road


def random_street(rng: np.random.Generator, lanes: int, marked: bool) -> Street:
    """A street of ``lanes`` lanes with a random bend, parking strip and lane for the camera."""
    kerb = float(rng.choice((0.6, 2.1)))
    ego_lane = int(rng.integers(lanes // 2, lanes))  # traffic keeps right
    return Street(lanes, marked, ego_lane, float(rng.normal(0, 0.0008)), kerb)


# --- the layouts: each yields {relative path: content} for every frame -------------------------


def cityscapes(frames: int, seed: int, hw: tuple[int, int]) -> Iterator[dict]:
    """``leftImg8bit`` and ``gtFine`` with label and instance ids (16 bit)."""
    cities = {
        "train": ("toyburg", "toyhaven"),
        "val": ("toywick",),
        "test": ("toyford",),
    }
    for part, (split, count) in enumerate(split_sizes("cityscapes", frames).items()):
        for number in range(count):
            frame = street_from_car(np.random.default_rng([seed, part, number]), hw)
            city = cities[split][number % len(cities[split])]
            name = f"{split}/{city}/{city}_{number:06d}_000019"
            ids = frame.ids if split != "test" else np.where(frame.ids == EGO, EGO, 0)
            labels = frame.label_ids if split != "test" else ids.astype(np.uint8)
            yield {
                f"leftImg8bit/{name}_leftImg8bit.png": frame.image,
                f"gtFine/{name}_gtFine_labelIds.png": labels,
                f"gtFine/{name}_gtFine_instanceIds.png": ids.astype(np.uint16),
            }


def street_from_car(rng: np.random.Generator, hw: tuple[int, int]) -> Drawing:
    """Draw a random street as a camera behind the windscreen sees it."""
    height, width = hw
    intrinsics = np.array(
        [
            [0.9 * width, 0, width / 2, 0],
            [0, 0.9 * width, height * 0.45, 0],
            [0, 0, 1, 0],
        ]
    )
    view, _ = camera(intrinsics, hw, 1.6, rng)
    street = random_street(rng, int(rng.integers(1, 4)), bool(rng.random() < 0.8))
    return draw_street(view, street, rng, bonnet=True)


def coco(frames: int, seed: int, hw: tuple[int, int]) -> Iterator[dict]:
    """``photos`` and ``annotations.json``: COCO's, a category for each class of Cityscapes."""
    rows = load_dataset("cityscapes").train_classes
    images, annotations = [], []
    for number in range(frames):
        frame = street_from_car(np.random.default_rng([seed, 0, number]), hw)
        file = f"street_{number:04d}.jpg"
        images.append({"id": number, "file_name": file, "height": hw[0], "width": hw[1]})
        for region in np.unique(frame.ids).tolist():
            category = region // 1000 if region >= 1000 else region
            if category in [row.id for row in rows]:
                encoded = coco_mask.encode(np.asfortranarray(frame.ids == region, np.uint8))
                annotation = {
                    "id": len(annotations) + 1, "image_id": number, "category_id": category,
                    "iscrowd": 0, "area": int(coco_mask.area(encoded)),
                    "bbox": coco_mask.toBbox(encoded).tolist(),
                    "segmentation": {"size": list(hw), "counts": encoded["counts"].decode()},
                }  # fmt: skip
                annotations.append(annotation)
        files = {f"photos/{file}": frame.image}
        if number == frames - 1:
            categories = [{"id": row.id, "name": row.name} for row in rows]
            document = {"images": images, "categories": categories, "annotations": annotations}
            files["annotations.json"] = json.dumps(document)
        yield files


def kitti(frames: int, seed: int, hw: tuple[int, int]) -> Iterator[dict]:
    """``data_road`` with its three categories; ``hw`` stands for the official 375 x 1242."""
    for part, (folder, count) in enumerate(split_sizes("kitti", frames).items()):
        for number in range(count):
            rng = np.random.default_rng([seed, part, number])
            category = list(KITTI_STREETS)[number % len(KITTI_STREETS)]
            official_hw = KITTI_SIZES[rng.integers(len(KITTI_SIZES))]
            scale = hw[0] / KITTI_SIZES[0][0], hw[1] / KITTI_SIZES[0][1]
            frame_hw = (
                round(official_hw[0] * scale[0]),
                round(official_hw[1] * scale[1]),
            )
            projections = [
                np.diag((scale[1], scale[0], 1))
                @ np.array([[KITTI_FOCAL, 0, KITTI_CENTRE[0], baseline],
                            [0, KITTI_FOCAL, KITTI_CENTRE[1], 0], [0, 0, 1, 0]])
                for baseline in KITTI_BASELINES
            ]  # fmt: skip
            rectify, _ = cv2.Rodrigues(np.array([0.004, -0.007, 0.009]))
            unrectified = np.eye(4)
            unrectified[:3, :3] = rectify
            view, to_road = camera(projections[2] @ unrectified, frame_hw, KITTI_HEIGHT, rng)
            frame = draw_street(view, random_street(rng, *KITTI_STREETS[category]), rng)
            name = f"{category}_{number // len(KITTI_STREETS):06d}"
            files = {
                f"data_road/{folder}/image_2/{name}.png": frame.image,
                f"data_road/{folder}/calib/{name}.txt": calibration(projections, rectify, to_road),
            }
            if folder == "training":
                for kind, mask in (
                    ("road", frame.ids == ROAD),
                    ("lane", frame.ego_lane),
                ):
                    if kind == "road" or category == "um":  # lanes are annotated in um only
                        truth = name.replace("_", f"_{kind}_")
                        files[f"data_road/training/gt_image_2/{truth}.png"] = road_truth(
                            frame, mask
                        )
            yield files


def calibration(projections: list[np.ndarray], rectify: np.ndarray, to_road: np.ndarray) -> str:
    """Text of a KITTI calibration file; the positions of laser and IMU are made up."""
    axes = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])  # laser: x forward, y left, z up
    entries = {f"P{index}": matrix for index, matrix in enumerate(projections)} | {
        "R0_rect": rectify,
        "Tr_velo_to_cam": np.column_stack([axes, [0, -0.08, -0.27]]),
        "Tr_imu_to_velo": np.column_stack([np.eye(3), [-0.81, 0.32, -0.8]]),
        "Tr_cam_to_road": to_road,
    }
    return "".join(
        f"{key}: {' '.join(f'{value:.12e}' for value in matrix.ravel())}\n"
        for key, matrix in entries.items()
    )


def road_truth(frame: Drawing, mask: np.ndarray) -> np.ndarray:
    """KITTI's annotation (H, W, 3) RGB of ``mask``; the kerb stones stay unlabelled (black)."""
    truth = np.full((*mask.shape, 3), KITTI_VALID, np.uint8)
    truth[mask] = KITTI_ROAD
    truth[frame.kerb] = 0
    return truth


def voc(frames: int, seed: int, hw: tuple[int, int]) -> Iterator[dict]:
    """``VOCdevkit/VOC2012``: frames of several shapes within ``hw`` and its transpose."""
    palette = load_dataset("voc").palette
    root = "VOCdevkit/VOC2012"
    for part, (split, count) in enumerate(split_sizes("voc", frames).items()):
        for number in range(count):
            rng = np.random.default_rng([seed, part, number])
            shapes = (hw, hw[::-1], (hw[0] * 8 // 9, hw[1]), (hw[0], hw[1] * 9 // 10))
            frame_hw = shapes[rng.choice(4, p=(0.5, 0.15, 0.2, 0.15))]
            focal = 1.3 * max(hw)
            intrinsics = np.array(
                [
                    [focal, 0, frame_hw[1] / 2, 0],
                    [0, focal, frame_hw[0] * 0.45, 0],
                    [0, 0, 1, 0],
                ]
            )
            view, _ = camera(intrinsics, frame_hw, 1.5, rng)
            frame = draw_street(view, random_street(rng, int(rng.integers(1, 4)), True), rng)
            name = f"2012_{part:02d}{number:04d}"
            files = {f"{root}/JPEGImages/{name}.jpg": frame.image}
            for listed in {
                "train": ("train", "trainval"),
                "val": ("val", "trainval"),
            }.get(split, ("test",)):
                files[f"{root}/ImageSets/Segmentation/{listed}.txt"] = f"{name}\n"
            if split != "test":
                truth = Image.fromarray(voc_truth(frame), mode="P")
                truth.putpalette(palette.tobytes())
                files[f"{root}/SegmentationClass/{name}.png"] = truth
            yield files


def voc_truth(frame: Drawing) -> np.ndarray:
    """VOC's annotation (H, W) uint8: classes, with a border of 255 around every object."""
    classes = np.zeros(256, np.uint8)
    classes[list(VOC_CLASSES)] = list(VOC_CLASSES.values())
    truth = classes[frame.label_ids]
    objects = np.where(truth > 0, frame.ids, 0).astype(np.float32)
    side = 2 * max(1, round(max(truth.shape) / 250)) + 1
    kernel = np.ones((side, side), np.uint8)
    truth[cv2.dilate(objects, kernel) != cv2.erode(objects, kernel)] = VOC_BORDER
    return truth


WRITERS = {"cityscapes": cityscapes, "kitti": kitti, "voc": voc, "coco": coco}
