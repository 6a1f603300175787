"""The official folder layouts and list files, and the errors for what is missing."""

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from data_iter import DataError
from data_iter.datasets import LAYOUTS, find_samples


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names(samples):
    return [sample.name for sample in samples]


def test_cityscapes_fine_coarse_and_extra(tmp_path):
    a, b, c = (f"{city}_000001_000019" for city in ("ulm", "bonn", "trier"))
    touch(
        tmp_path,
        f"leftImg8bit/train/ulm/{a}_leftImg8bit.png",
        f"gtFine/train/ulm/{a}_gtFine_labelIds.png",
        f"gtCoarse/train/ulm/{a}_gtCoarse_labelIds.png",
        f"leftImg8bit/train/bonn/{b}_leftImg8bit.png",
        f"gtFine/train/bonn/{b}_gtFine_labelIds.png",
        f"leftImg8bit/train_extra/trier/{c}_leftImg8bit.png",
        f"gtCoarse/train_extra/trier/{c}_gtCoarse_labelIds.png",
    )
    fine = find_samples("cityscapes", tmp_path, "train")
    assert names(fine) == [b, a]
    assert fine[1].label == tmp_path / f"gtFine/train/ulm/{a}_gtFine_labelIds.png"
    both = find_samples("cityscapes", tmp_path, "train+train_extra")
    assert names(both) == [b, c, a]
    assert both[1].label.parts[-4:-1] == ("gtCoarse", "train_extra", "trier")
    coarse = LAYOUTS["cityscapes"].find(tmp_path, "train_coarse")
    assert {s.label.name.split("_")[-2] for s in coarse} == {"gtCoarse"}
    with pytest.raises(DataError, match=f"{b}.*no label; expected .*gtCoarse"):
        find_samples("cityscapes", tmp_path, "train_coarse")


def kitti(root):
    for category, count in (("um", 95), ("umm", 96), ("uu", 98)):  # the official 289
        for number in range(count):
            touch(root, f"training/image_2/{category}_{number:06d}.png")
            touch(root, f"training/gt_image_2/{category}_road_{number:06d}.png")
            if category == "um":
                touch(root, f"training/gt_image_2/um_lane_{number:06d}.png")


def test_kitti_holds_out_a_fifth_of_each_category(tmp_path):
    kitti(tmp_path)
    touch(tmp_path, "testing/image_2/uu_000003.png")
    train, val, both = (
        find_samples("kitti", tmp_path, split) for split in ("train", "val", "trainval")
    )
    assert len(both) == 289
    assert sorted(names(train) + names(val)) == names(both)
    assert [sum(n.startswith(f"{c}_") for n in names(val)) for c in ("um", "umm", "uu")] == [
        19, 19, 19
    ]  # fmt: skip
    assert names(find_samples("kitti", tmp_path, "val")) == names(val)
    assert not any("lane" in sample.label.name for sample in both)
    assert find_samples("kitti", tmp_path, "test", labelled=False)[0].label is None


def test_kitti_ground_truth_is_red_for_valid_and_blue_for_road(tmp_path):
    colours = np.array([[[255, 0, 0], [255, 0, 255], [0, 0, 0]], [[0, 0, 255]] * 3], np.uint8)
    Image.fromarray(colours).save(tmp_path / "x.png")
    label = LAYOUTS["kitti"].read_label(tmp_path / "x.png")
    assert label.tolist() == [[0, 1, 255], [255, 255, 255]]


def test_kitti_refuses_masks_that_are_not_its_own(tmp_path):
    mask = np.zeros((3, 4, 3), np.uint8)
    mask[2] = 255
    Image.fromarray(mask).save(tmp_path / "white.png")
    Image.fromarray(mask[:, :, 0] // 255).save(tmp_path / "grey.png")
    for name in ("white.png", "grey.png"):
        with pytest.raises(DataError, match=rf"{name}: found pixels with red and green.*mask"):
            LAYOUTS["kitti"].read_label(tmp_path / name)
    Image.fromarray(mask).save(tmp_path / "x.jpg")
    (tmp_path / "x.jpg").rename(tmp_path / "jpeg.png")
    with pytest.raises(DataError, match=r"jpeg\.png: a label must be a PNG"):
        LAYOUTS["kitti"].read_label(tmp_path / "jpeg.png")


def voc(root, train, val):
    for split, ids in (("train", train), ("val", val), ("trainval", train + val)):
        touch(root, f"ImageSets/Segmentation/{split}.txt")
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(ids) + "\n")
    touch(root, *(f"SegmentationClass/{name}.png" for name in train + val))


def test_voc_lists_and_test_without_labels(tmp_path):
    voc(tmp_path, ["2007_000032", "2007_000039"], ["2007_000033"])
    (tmp_path / "ImageSets/Segmentation/test.txt").write_text("2008_000006\n")
    assert names(find_samples("voc", tmp_path, "trainval")) == [
        "2007_000032", "2007_000033", "2007_000039"
    ]  # fmt: skip
    test = find_samples("voc", tmp_path, "test", labelled=False)
    assert test == [(tmp_path / "JPEGImages/2008_000006.jpg", None, "2008_000006")]


@pytest.mark.parametrize("place", ["SegmentationClassAug/{}.png", "SBD/cls/{}.mat"])
def test_voc_augmented_is_both_sources_without_val(tmp_path, place):
    voc(tmp_path, ["2007_1", "2007_2"], ["2007_3", "2008_4"])
    touch(tmp_path, *(place.format(name) for name in ("2007_2", "2008_4", "2008_5", "2008_6")))
    augmented = find_samples("voc", tmp_path, "train_aug")
    assert names(augmented) == ["2007_1", "2007_2", "2008_5", "2008_6"]
    assert augmented[1].label == tmp_path / "SegmentationClass/2007_2.png"  # VOC's own where it is
    assert augmented[2].label == tmp_path / place.format("2008_5")
    assert len(find_samples("voc", tmp_path, "trainval_aug")) == 6


def test_voc_reads_mat_files_and_both_kinds_of_png(tmp_path):
    label = np.random.default_rng(0).integers(0, 21, (13, 17), np.uint8)
    segmentation = np.zeros((1, 1), [("Boundaries", object), ("Segmentation", object)])
    segmentation["Segmentation"][0, 0] = label
    savemat(tmp_path / "x.mat", {"GTcls": segmentation})
    Image.fromarray(label).save(tmp_path / "grey.png")
    palette = Image.fromarray(label, "P")
    palette.putpalette(list(range(256)))
    palette.save(tmp_path / "palette.png")
    for name in ("x.mat", "grey.png", "palette.png"):
        found = LAYOUTS["voc"].read_label(tmp_path / name)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, label)
    savemat(tmp_path / "packed.mat", {"GTcls": segmentation}, do_compression=True)
    packed = bytearray((tmp_path / "packed.mat").read_bytes())
    packed[len(packed) // 2] ^= 255  # zlib notices
    for content in (b"MATLAB", packed):
        (tmp_path / "bad.mat").write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.mat"):
            LAYOUTS["voc"].read_label(tmp_path / "bad.mat")


def test_list_files(tmp_path):
    """Comments and empty lines are skipped, and samples are sorted by their image."""
    touch(tmp_path, "a/2.png", "a/1.jpg", "b/2.png", "b/1.png")
    (tmp_path / "my.txt").write_text("# image<tab>label\na/2.png\tb/2.png\n\na/1.jpg\tb/1.png\n")
    assert find_samples("folders", tmp_path, "my.txt") == [
        (tmp_path / "a/1.jpg", tmp_path / "b/1.png", "1"),
        (tmp_path / "a/2.png", tmp_path / "b/2.png", "2"),
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a/2.png b/2.png", r"line 1: no such image.*expected IMAGE<tab>LABEL"),
        ("a/2.png\tb/2.png\tc", r"line 1: expected IMAGE<tab>LABEL"),
        ("a/2.png", r"2\.png: the image has no label"),
        ("a/2.png\tb/9.png", r"no label; expected .*b/9\.png"),
        ("# nothing", r"found no images of split 'my.txt'"),
    ],
)
def test_a_wrong_list_file_says_what_is_wrong(tmp_path, content, reason):
    touch(tmp_path, "a/2.png", "b/2.png")
    (tmp_path / "my.txt").write_text(content)
    with pytest.raises(DataError, match=reason):
        find_samples("folders", tmp_path, "my.txt")


def test_a_list_that_is_no_text_is_named(tmp_path):
    (tmp_path / "my.txt").write_bytes(b"a/2.png\xff\tb/2.png")
    with pytest.raises(DataError, match=r"my\.txt: not a list in UTF-8"):
        find_samples("folders", tmp_path, "my.txt")


def test_missing_folder_split_and_list_say_where_to_get_the_data(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no such data folder. Get it at X"):
        find_samples("cityscapes", tmp_path / "nowhere", "train", "Get it at X")
    with pytest.raises(DataError, match=r"no images of split 'val' in it. Get it at X"):
        find_samples("kitti", tmp_path, "val", "Get it at X")
    with pytest.raises(DataError, match=r"no such list file"):
        find_samples("folders", tmp_path, "none.txt")
