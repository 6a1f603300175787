"""COCO's JSON with one's own categories: polygons and run lengths, read by pycocotools."""

from __future__ import annotations

from pathlib import Path

from pycocotools.coco import COCO

from tools.dataset.coco import load_annotations

from .regions import IGNORED, Annotated, Finder, Region, Source

NO_OUTLINE = "COCO annotations without an outline (a box alone)"


def read(file: Path, images: Path | None) -> Source:
    """Read an annotation file; ``images`` is the folder of its images, by default those beside it.

    Crowds, which COCO outlines roughly, are ignored where nothing else is.
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
    finder = Finder(images, file.parent, file.parent / "images", file.parent.parent)
    for entry in coco.loadImgs(sorted(coco.getImgIds())):
        path = finder.find(str(entry["file_name"]))
        if path is None:
            source.leave_out("images that are missing", str(entry["file_name"]))
            continue
        annotations = [a for a in coco.imgToAnns[entry["id"]] if a["category_id"] in names]
        for annotation in annotations:
            if not annotation.get("segmentation"):
                source.leave_out(NO_OUTLINE, f"{path.name}: {names[annotation['category_id']]}")
        outlined = [a for a in annotations if a.get("segmentation")]
        source.images.append(Annotated(path, path.stem, _reader(coco, entry, outlined, names)))
    return source


def _reader(coco: COCO, entry: dict, annotations: list[dict], names: dict[int, str]):
    def regions(hw: tuple[int, int]) -> list[Region]:
        coco.imgs[entry["id"]] |= {"height": hw[0], "width": hw[1]}
        return [
            Region(
                IGNORED if annotation.get("iscrowd") else names[annotation["category_id"]],
                coco.annToMask(annotation).astype(bool),
            )
            for annotation in annotations
        ]

    return regions
