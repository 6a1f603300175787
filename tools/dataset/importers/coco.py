"""COCO's JSON with any categories: polygons and run lengths, read by pycocotools."""

from __future__ import annotations

from pathlib import Path

from tools.dataset.coco import load_annotations, mask_of

from .regions import IGNORED, Annotated, Finder, Region, Source, stated_hw

TOO_SHORT = "COCO annotations whose outline has fewer than three points"
NO_OUTLINE = "COCO annotations without an outline (a box alone)"


def read(file: Path, images: Path | None) -> Source:
    """Read an annotation file; ``images`` is the folder of its images (default: the file's folder).

    Crowds, which COCO outlines roughly, are ignored pixels unless another region covers them.
    """
    coco = load_annotations(file)
    source = Source()
    names = {c["id"]: str(c["name"]) for c in coco.loadCats(sorted(coco.getCatIds()))}
    used = {annotation["category_id"] for annotation in coco.anns.values()}
    for number, name in names.items():
        if number in used:
            source.classes.append(name)
        else:
            source.leave_out("categories without an annotation", name)
    for number in sorted(used - names.keys(), key=str):
        source.leave_out("annotations of a category that has no name", f"category {number}")
    for annotation in coco.anns.values():
        if annotation["image_id"] not in coco.imgs:
            reason = "annotations of an image that is not listed"
            source.leave_out(reason, f"image {annotation['image_id']}")
    finder = Finder(images, file.parent, file.parent / "images", file.parent.parent)
    for entry in coco.loadImgs(sorted(coco.getImgIds())):
        path = finder.find(str(entry["file_name"]))
        if path is None:
            source.leave_out("images that are missing", str(entry["file_name"]))
            continue
        annotations = [a for a in coco.imgToAnns[entry["id"]] if a["category_id"] in names]
        for annotation in annotations:
            if reason := _without_outline(annotation):
                source.leave_out(reason, f"{path.name}: {names[annotation['category_id']]}")
        regions = _reader(file, annotations, names)
        hw = stated_hw(entry.get("height"), entry.get("width"))
        source.images.append(Annotated(path, path.stem, regions, hw=hw))
    return source


def _without_outline(annotation: dict) -> str:
    outline = annotation.get("segmentation")
    if not outline:
        return NO_OUTLINE
    points = isinstance(outline, list) and all(isinstance(part, list) for part in outline)
    return TOO_SHORT if points and max(map(len, outline)) < 6 else ""


def _reader(file: Path, annotations: list[dict], names: dict[int, str]):
    def regions(hw: tuple[int, int]) -> list[Region]:
        found = []
        for annotation in annotations:
            mask = mask_of(annotation, hw, file)
            if mask is not None:
                crowd = annotation.get("iscrowd")
                found.append(Region(IGNORED if crowd else names[annotation["category_id"]], mask))
        return found

    return regions
