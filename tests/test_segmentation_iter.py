"""The iterator on real files: the same batches for any thread count, and errors name the file."""

import gc
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

import data_iter.crops
from data_iter import DataError
from data_iter.crops import CropReader
from data_iter.frames import open_frames
from data_iter.segmentation_iter import SegmentationIter, _shut_down
from data_iter.transforms import Crop

LUT = np.full(256, -1, np.int16)
LUT[:5] = [0, 1, 2, 3, 255]


@pytest.fixture
def root(tmp_path):
    """Write nine frames of 61x83 pixels whose label is a function of the image."""
    random = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (tmp_path / kind / "train").mkdir(parents=True)
    for number in range(9):
        label = random.integers(0, 5, (61, 83), np.uint8)
        image = np.stack([label * 50, label * 50 + 1, np.full_like(label, number * 20)], 2)  # RGB
        cv2.imwrite(str(tmp_path / f"labels/train/{number}.png"), label)
        cv2.imwrite(str(tmp_path / f"images/train/{number}.png"), image[:, :, ::-1])
    return tmp_path


def crops(root, **options):
    options = {
        "label_lut": LUT, "ignore_id": 255, "mean_rgb": (0, 0, 0), "crop_hw": (48, 56),
        "patches": "image", "patch_hw": (800, 800), "patch_stride": 100,
        "patch_jitter": 80, "scales": (1.0,),
        "mirror": True, "seed": 7,
    } | options  # fmt: skip
    return CropReader(open_frames("folders", root, "train"), **options)


def epoch(batches):
    return [(b.data[0].asnumpy(), b.label[0].asnumpy(), b.index.tolist()) for b in batches]


def equal(first, second):
    return len(first) == len(second) and all(
        np.array_equal(a, b) for x, y in zip(first, second) for a, b in zip(x, y)
    )


def workers():
    return [t for t in threading.enumerate() if t.name.startswith("crop")]


def test_image_and_label_are_cut_scaled_and_mirrored_together(root):
    batches = SegmentationIter(crops(root), batch_size=9, cell=1, block=1)
    images, labels, indices = epoch(batches)[0]
    assert sorted(indices) == list(range(9))
    labels = labels.reshape(9, 48, 56)
    expected = np.where(images[:, 0] == 200, 255, images[:, 0] / 50)  # label 4 is ignored
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(images[:, 1], images[:, 0] + 1)
    np.testing.assert_array_equal(images[:, 2, 0, 0], np.array(indices) * 20)


def test_mirroring_occurs_and_is_exact(root):
    frame = cv2.imread(str(root / "labels/train/0.png"), cv2.IMREAD_UNCHANGED)
    expected = LUT.astype(np.uint8)[frame]
    seen = set()
    reader = crops(root, crop_hw=(61, 83), patches="image")
    image = np.empty((3, 61, 83), np.float32)
    for number in range(20):
        label = reader.read(number, 0, image)
        mirrored = np.array_equal(label, expected[:, ::-1])
        assert mirrored or np.array_equal(label, expected)
        seen.add(mirrored)
    assert seen == {True, False}


def test_outside_the_image_is_the_mean_and_the_ignore_label(root):
    reader = crops(root, crop_hw=(64, 96), mean_rgb=(1.5, 2.5, 3.5), mirror=False)
    image = np.empty((3, 64, 96), np.float32)
    label = reader.read(0, 4, image)
    inside = image[2] == 4 * 20 - 3.5
    assert inside.sum() == 61 * 83
    assert (image[:, ~inside] == 0).all()
    assert (label[~inside] == 255).all()
    assert (np.ptp(np.argwhere(inside), axis=0) == (60, 82)).all()


def test_a_crop_is_turned_about_its_centre_with_its_label(root, monkeypatch):
    """By hand: a turn by 90 degrees counter-clockwise of an image as large as the crop."""
    monkeypatch.setattr(data_iter.crops, "draw_angle", lambda random, rotate: 90.0)
    reader = crops(root, crop_hw=(61, 83), mirror=False, rotate=90)
    image = np.empty((3, 61, 83), np.float32)
    label = reader.read(0, 4, image)
    frame = cv2.imread(str(root / "labels/train/4.png"), cv2.IMREAD_UNCHANGED)
    tall = np.full((83, 61), 255, np.uint8)  # 83x61 pixels about the frame's centre
    tall[11:72] = LUT.astype(np.uint8)[frame[:, 11:72]]
    np.testing.assert_array_equal(label, np.rot90(tall))
    inside = np.rot90(np.pad(np.ones((61, 61), bool), ((11, 11), (0, 0))))
    np.testing.assert_array_equal(image[2], np.where(inside, 4 * 20, 0))
    expected = np.rot90(np.pad(50 * frame[:, 11:72], ((11, 11), (0, 0))))
    np.testing.assert_array_equal(image[0], expected)


def test_a_turned_crop_shows_the_image_beyond_the_upright_one(root, monkeypatch):
    place = Crop(scale=1.0, top=20, left=28, mirror=False)
    monkeypatch.setattr(data_iter.crops, "draw_crop", lambda *arguments: place)
    reader = crops(root, crop_hw=(20, 26), rotate=180)
    image = np.empty((3, 20, 26), np.float32)
    for number in range(20):
        reader.read(number, 5, image)
        assert (image[2] == 5 * 20).all()  # padding would be 0


def test_one_and_eight_threads_give_the_same_bits_and_epochs_differ(root):
    epochs = []
    for threads in (1, 8):
        changed = {"scales": (0.5, 1.25), "jitter": (0.3, 0.3, 0.3, 0.1), "blur": 1.0}
        changed["rotate"] = 40.0
        batches = SegmentationIter(crops(root, **changed), 4, 2, 4, threads=threads)
        epochs.append(epoch(batches))
        batches.reset()
        epochs.append(epoch(batches))
        batches.close()
    assert equal(epochs[0], epochs[2])
    assert equal(epochs[1], epochs[3])
    assert not equal(epochs[0], epochs[1])
    assert len(epochs[0]) == 3
    assert set(sum((e[2] for e in epochs[0]), [])) == set(range(9))


def test_another_seed_gives_other_batches(root):
    one = epoch(SegmentationIter(crops(root), 3, 1, 1))
    assert not equal(one, epoch(SegmentationIter(crops(root, seed=8), 3, 1, 1)))


def test_going_back_into_an_epoch_gives_its_remaining_batches(root):
    batches = SegmentationIter(crops(root, scales=(0.75, 1.5)), 2, 2, 4)
    batches.seek(3, 0)
    whole = epoch(batches)
    batches.seek(3, 2)
    assert equal(epoch(batches), whole[2:])


def test_parts_are_disjoint_and_together_the_whole(root):
    parts = []
    for part in range(3):
        batches = SegmentationIter(crops(root), 1, 1, 1, num_parts=3, part_index=part)
        parts.append(sum((b[2] for b in epoch(batches)), []))
    assert sorted(sum(parts, [])) == list(range(9))
    assert [len(part) for part in parts] == [3, 3, 3]


def test_shapes_are_described_as_delivered(root):
    batches = SegmentationIter(crops(root), 4, 2, 4)
    batch = batches.next()
    assert [d.shape for d in batches.provide_data] == [batch.data[0].shape] == [(4, 3, 48, 56)]
    assert [d.shape for d in batches.provide_label] == [batch.label[0].shape] == [(4, 24 * 28)]


def test_parts_differ_by_one_at_most_and_give_equally_many_batches(root):
    indices, lengths = [], []
    for part in range(4):
        iterator = SegmentationIter(crops(root), 1, 1, 1, num_parts=4, part_index=part)
        found = sum((b[2] for b in epoch(iterator)), [])
        lengths.append(len(found))
        indices.append(set(found))
        iterator.close()
    assert lengths == [3, 3, 3, 3]  # parts of two frames repeat one, so that no worker waits
    assert sorted(len(part) for part in indices) == [2, 2, 2, 3]
    assert set.union(*indices) == set(range(9))
    with pytest.raises(ValueError, match="part_index 4"):
        SegmentationIter(crops(root), 1, 1, 1, num_parts=4, part_index=4)
    with pytest.raises(DataError, match="9 patches cannot be shared by 10 workers"):
        SegmentationIter(crops(root), 1, 1, 1, num_parts=10, part_index=0)


def test_a_part_is_shuffled_anew_each_epoch(root):
    iterator = SegmentationIter(crops(root), 1, 1, 1, num_parts=2, part_index=1)
    orders = []
    for _ in range(3):
        orders.append(sum((b[2] for b in epoch(iterator)), []))
        iterator.reset()
    assert len({tuple(order) for order in orders}) == 3


def test_another_iterator_goes_on_where_one_was(root):
    iterator = SegmentationIter(crops(root, scales=(0.75, 1.5)), 2, 2, 4)
    iterator.reset()
    iterator.next()
    iterator.next()
    rest = epoch(iterator)
    iterator.reset()
    following = epoch(iterator)
    again = SegmentationIter(crops(root, scales=(0.75, 1.5)), 2, 2, 4, threads=3)
    again.seek(1, 2)
    assert equal(epoch(again), rest)
    again.reset()
    assert equal(epoch(again), following)


def test_bad_samples_are_replaced_alike_for_any_thread_count(root, caplog):
    (root / "labels/train/5.png").write_bytes(b"")
    (root / "images/train/7.png").write_bytes(b"")
    found = []
    for threads in (1, 6):
        reader = crops(root, on_bad_sample="skip", max_bad_share=0.25, scales=(0.5, 1.5))
        iterator = SegmentationIter(reader, 2, 1, 1, threads=threads)
        found.append(epoch(iterator))
        iterator.close()
        assert reader.bad == {5, 7}
    assert equal(*found)
    assert len(found[0]) == 4  # the eight frames that have a readable header
    blue = {round(float(value)) for images, _, _ in found[0] for value in images[:, 2].max((1, 2))}
    assert blue <= {number * 20 for number in range(9)} - {100, 140}
    assert "labels/train/5.png" in caplog.text
    assert "images/train/7.png" in caplog.text


def test_too_many_bad_samples_stop_all_the_same(root):
    for number in (2, 5, 6):
        (root / f"labels/train/{number}.png").write_bytes(b"")
    reader = crops(root, on_bad_sample="skip", max_bad_share=0.25)
    iterator = SegmentationIter(reader, 2, 1, 1, threads=2)
    with pytest.raises(DataError, match=r"3 of 9 frames cannot be used.*labels/train/\d\.png"):
        epoch(iterator)
    iterator.close()


def test_the_digest_of_labels_follows_their_values_and_not_their_files(root):
    before = crops(root).label_digest()
    file = root / "labels/train/4.png"
    label = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(file.with_suffix(".bmp")), label)
    file.unlink()
    assert crops(root).label_digest() == before
    label[60, 82] ^= 1
    cv2.imwrite(str(file.with_suffix(".bmp")), label)
    assert crops(root).label_digest() != before
    file.with_suffix(".bmp").write_bytes(b"")
    with pytest.raises(DataError, match="4.bmp"):
        crops(root).label_digest()
    assert crops(root, on_bad_sample="skip", max_bad_share=1).label_digest() != before


def test_an_iterator_may_be_collected_in_one_of_its_own_threads():
    pool = ThreadPoolExecutor(2)
    assert pool.submit(_shut_down, pool).result(timeout=20) is None  # no thread joins itself
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(print)


@pytest.mark.timeout(60)
def test_when_every_frame_is_bad_no_thread_looks_for_a_good_one_for_ever(root):
    reader = crops(root, on_bad_sample="skip", max_bad_share=1.0)
    for label in (root / "labels/train").iterdir():
        label.write_bytes(b"")
    iterator = SegmentationIter(reader, 4, 1, 1, threads=4)
    with pytest.raises(DataError, match="9 of 9 frames cannot be used"):
        epoch(iterator)
    iterator.close()
    assert not workers()


@pytest.mark.parametrize("damage", ["truncate", "size", "value", "missing"])
def test_a_bad_file_is_named_and_nothing_hangs(root, damage):
    label = root / "labels/train/5.png"
    if damage == "truncate":
        label.write_bytes(label.read_bytes()[:-200])
    elif damage == "size":
        cv2.imwrite(str(label), np.zeros((61, 82), np.uint8))
    elif damage == "value":
        cv2.imwrite(str(label), np.full((61, 83), 77, np.uint8))
    reader = crops(root)
    if damage == "missing":
        label.unlink()
    batches = SegmentationIter(reader, 2, 1, 1, threads=3)
    with pytest.raises(DataError, match=r"labels/train/5\.png"):
        epoch(batches)
    batches.close()
    assert not workers()


@pytest.mark.parametrize("corner", [1, 44])  # a class, and no class
def test_a_label_is_judged_by_its_whole_file(root, corner):
    label = np.full((61, 83), corner, np.uint8)
    label[:10, :10] = np.arange(100).reshape(10, 10)  # 5 to 99 are no labels
    for file in (root / "labels/train").iterdir():
        cv2.imwrite(str(file), label)
    reader = crops(root, crop_hw=(8, 8), patches="grid", patch_hw=(8, 8), patch_stride=200)
    last = len(reader) - 1  # the lower right corner
    with pytest.raises(DataError, match=r"5 \(1 pixels\).*a colour or compressed") as error:
        reader.read(0, last, np.empty((3, 8, 8), np.float32))
    assert str(root / "labels/train/8.png") in str(error.value)


def test_close_and_collection_leave_no_thread(root):
    batches = SegmentationIter(crops(root), 2, 1, 1, threads=4)
    batches.next()
    assert workers()
    batches.close()
    batches.close()
    assert not workers()
    with pytest.raises(RuntimeError):
        batches.next()
    batches = SegmentationIter(crops(root), 2, 1, 1, threads=4)
    batches.next()
    del batches
    gc.collect()
    assert not workers()


def test_a_slow_consumer_does_not_fill_the_memory(root):
    batches = SegmentationIter(crops(root), 1, 1, 1, threads=2, queue=3)
    assert len(batches._pending) == 3
    batches.next()
    assert len(batches._pending) == 3


def test_a_forked_process_is_told_that_it_has_no_threads(root):
    batches = SegmentationIter(crops(root), 2, 1, 1, threads=2)
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        try:
            [batches.next() for _ in range(5)]
        except RuntimeError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    batches.close()


@pytest.mark.slow
def test_ctrl_c_ends_a_process_that_waits_for_a_batch(root):
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]);"
        "from tests.test_segmentation_iter import crops, SegmentationIter;"
        "from pathlib import Path; r = crops(Path(sys.argv[2]));"
        "cut = r._cut; r._cut = lambda *a: (time.sleep(0.5), cut(*a))[1];"
        "b = SegmentationIter(r, 4, 1, 1, threads=2, queue=2); print('ready', flush=True);"
        "[(list(b), b.reset()) for _ in range(10**6)]"
    )
    project = Path(__file__).resolve().parents[1]
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(project), str(root)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode not in (0, None)
    assert "KeyboardInterrupt" in error


def test_a_process_that_just_ends_does_not_hang(root):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from tests.test_segmentation_iter import crops, SegmentationIter;"
        "from pathlib import Path;"
        "b = SegmentationIter(crops(Path(sys.argv[2])), 2, 1, 1, threads=4); b.next();"
        "raise ValueError('the loop broke')"
    )
    project = Path(__file__).resolve().parents[1]
    ended = subprocess.run(
        [sys.executable, "-c", code, str(project), str(root)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "the loop broke" in ended.stderr
