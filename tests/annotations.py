"""One small street drawn twelve times, exported in each of the annotation formats."""

import base64
import io
import json

import cv2
import numpy as np
from PIL import Image

HW = (48, 64)
FRAMES = 12
CLASSES = ("road", "car [parked]")


def truth(number):
    """Labels of a frame: 0 is road (the lower half), 1 a car on it, 255 elsewhere."""
    label = np.full(HW, 255, np.uint8)
    label[24:] = 0
    left = 4 + 3 * number
    label[30:42, left : left + 16] = 1
    return label


def boxes(number):
    """(class, left, top, right, bottom) in pixels, road first."""
    left = 4 + 3 * number
    return [(0, 0, 24, 64, 48), (1, left, 30, left + 16, 42)]


def corners(box):
    left, top, right, bottom = box
    return [left, top, right, top, right, bottom, left, bottom]


def write_images(folder):
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(3)
    for number in range(FRAMES):
        image = random.integers(0, 60, (*HW, 3), np.uint8)
        image[truth(number) == 0] += 80
        image[truth(number) == 1] += 180
        cv2.imwrite(str(folder / f"seq{number // 4}_{number:02}.png"), image)
    return sorted(folder.iterdir())


def coco(root):
    images, annotations = [], []
    for number, file in enumerate(write_images(root / "photos")):
        images.append({"id": number, "file_name": file.name, "height": HW[0], "width": HW[1]})
        for kind, *box in boxes(number):
            area = {"iscrowd": 0, "area": 1, "bbox": [0, 0, 1, 1]}
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": 10 * (kind + 1),
                 "segmentation": [corners(box)], **area}
            )  # fmt: skip
    categories = [{"id": 10 * (i + 1), "name": name} for i, name in enumerate(CLASSES)]
    categories.append({"id": 99, "name": "unused"})
    images.append({"id": 77, "file_name": "gone.png", "height": 4, "width": 4})
    # The first car as run lengths, column by column, as COCO counts.
    mask = (truth(0) == 1).ravel(order="F").astype(int)
    edges = np.flatnonzero(np.diff(mask)) + 1
    runs = np.diff([0, *edges.tolist(), mask.size]).tolist()
    annotations[1]["segmentation"] = {"counts": runs, "size": list(HW)}
    document = {"images": images, "annotations": annotations, "categories": categories}
    (root / "all.json").write_text(json.dumps(document))
    return root / "all.json", ["--images", str(root / "photos")]


def labelme(root):
    for number, file in enumerate(write_images(root)):
        shapes = [
            {"label": CLASSES[kind], "shape_type": "polygon",
             "points": np.reshape(corners(box), (4, 2)).tolist()}
            for kind, *box in boxes(number)
        ]  # fmt: skip
        if number == 1:  # a rectangle of the same pixels
            left, top, right, bottom = boxes(1)[1][1:]
            shapes[1] |= {"shape_type": "rectangle", "points": [[right, bottom], [left, top]]}
        if number == 2:
            left, top, right, bottom = boxes(2)[1][1:]
            stored = io.BytesIO()
            car = np.full((bottom - top, right - left), 255, np.uint8)
            Image.fromarray(car).save(stored, "PNG")
            shapes[1] |= {"shape_type": "mask", "points": [[left, top], [right - 1, bottom - 1]],
                          "mask": base64.b64encode(stored.getvalue()).decode()}  # fmt: skip
        shapes.append({"label": "kerb", "shape_type": "linestrip", "points": [[0, 0], [9, 9]]})
        document = {"version": "5.4.1", "imagePath": file.name, "shapes": shapes}
        file.with_suffix(".json").write_text(json.dumps(document))
    return root, []


def cvat(root):
    lines = ["<annotations><meta><task><labels>"]
    lines += [f"<label><name>{name}</name></label>" for name in (*CLASSES, "unused")]
    lines.append("</labels></task></meta>")
    for number, file in enumerate(write_images(root / "images")):
        lines.append(f'<image id="{number}" name="{file.name}" width="64" height="48">')
        (_, *road), (_, *car) = boxes(number)
        points = ";".join(f"{x},{y}" for x, y in np.reshape(corners(road), (4, 2)))
        left, top, right, bottom = car
        place = f'xtl="{left}" ytl="{top}" xbr="{right}" ybr="{bottom}"'
        shape = f'<box label="{CLASSES[1]}" {place} z_order="1"/>'
        if number == 1:
            width, height = right - left, bottom - top
            place = f'left="{left}" top="{top}" width="{width}" height="{height}"'
            runs = f"0, {width * height}"
            shape = f'<mask label="{CLASSES[1]}" rle="{runs}" {place} z_order="1"/>'
        # Written first and still drawn on top: z_order decides.
        lines += [shape, f'<polygon label="{CLASSES[0]}" points="{points}" z_order="0"/>']
        lines += ['<polyline label="kerb" points="0,0;9,9"/>', "</image>"]
    (root / "all.xml").write_text("\n".join([*lines, "</annotations>"]))
    return root / "all.xml", []


def yolo(root):
    (root / "labels").mkdir(parents=True)
    for number, file in enumerate(write_images(root / "images")):
        lines = []
        for kind, *box in boxes(number):
            shares = [v / HW[1 - i % 2] for i, v in enumerate(corners(box))]
            lines.append(" ".join([str(kind), *map(str, shares)]))
        (root / "labels" / f"{file.stem}.txt").write_text(
            "\r\n".join([*lines, "2 0.5 0.5 0.1 0.1"])
        )
    names = json.dumps([*CLASSES, "kerb"])
    (root / "data.yaml").write_text(f"\ufeffnames: {names}\n")
    return root, []


def masks(root):
    (root / "masks").mkdir(parents=True)
    palette = np.zeros((256, 3), np.uint8)
    palette[[0, 1, 255]] = [(128, 64, 128), (0, 0, 142), (0, 0, 0)]
    for number, file in enumerate(write_images(root / "images")):
        Image.fromarray(palette[truth(number)]).save(root / "masks" / f"{file.stem}_L.png")
    (root / "colors.txt").write_text(f"128 64 128 {CLASSES[0]}\n0,0,142 {CLASSES[1]}\n0 0 0 void\n")
    return root, ["--colors", str(root / "colors.txt")]


FORMATS = {"coco": coco, "labelme": labelme, "cvat": cvat, "yolo": yolo, "masks": masks}
