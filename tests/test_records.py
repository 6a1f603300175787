"""Cached and prepared frames against direct mode; damaged records; a pack that is killed."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import mxnet as mx
import numpy as np
import pytest

from data_iter import DataError
from data_iter.crops import CropReader
from data_iter.datasets import find_samples
from data_iter.frames import CachedFrames, FileFrames, open_frames
from data_iter.records import RecordFrames, Shard, encode_frame, read_manifest, write_records
from data_iter.segmentation_iter import SegmentationIter
from tools.dataset import packing
from tools.dataset.packing import pack
from train import RunError, atomic

HW = (301, 467)  # not multiples of the tiles' side
PROJECT = Path(__file__).resolve().parents[1]


def write_frames(root, count):
    random = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (root / kind / "train").mkdir(parents=True)
    for number in range(count):
        coarse = random.integers(0, 256, (10, 15, 3), np.uint8)
        image = cv2.resize(coarse, HW[::-1], interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(image + random.normal(0, 2, image.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(root / f"images/train/{number:02d}.png"), noisy)
        cv2.imwrite(str(root / f"labels/train/{number:02d}.png"), coarse.max(2).repeat(40, 0)[
            : HW[0]].repeat(40, 1)[:, : HW[1]] // 32)  # fmt: skip
    return root


MAGIC = (0xCED7230A).to_bytes(4, "little")


def test_records_that_hold_recordio_s_own_mark_are_read_back(tmp_path):
    """MXNet splits a record where its content has the mark at a whole word; reading joins it."""
    stored = np.resize(np.frombuffer(MAGIC, np.uint8), (100, 120, 3))
    # OpenCV's PNG holds differences to the pixel on the left, of RGB.
    image = np.ascontiguousarray(np.cumsum(stored, axis=1, dtype=np.uint8)[:, :, ::-1])
    label = np.resize(np.frombuffer(MAGIC, np.uint8), (100, 120))
    tiles = encode_frame(image, label, None)
    written = [tiles, [*tiles, *tiles]]
    write_records(tmp_path / "a.rec", tmp_path / "a.idx", written)
    assert (tmp_path / "a.rec").read_bytes().count(MAGIC) > 6  # more than one for each record
    theirs = mx.recordio.MXIndexedRecordIO(str(tmp_path / "a.idx"), str(tmp_path / "a.rec"), "r")
    assert [theirs.read_idx(number) for number in range(3)] == [*tiles, *tiles, *tiles]
    shard = Shard(tmp_path / "a.rec")
    for first, count in ((0, 3), (1, 1), (2, 1)):
        found = list(shard.tiles(first, count))
        assert len(found) == count
        for pixels, values in found:
            np.testing.assert_array_equal(pixels, image)
            np.testing.assert_array_equal(values, label)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_frames(tmp_path_factory.mktemp("data"), 5)


def prepare(data, out, quality=None):
    samples = find_samples("folders", data, "train")
    return pack(samples, FileFrames(samples), out, "train", quality)


def batches(frames, threads=2):
    reader = CropReader(
        frames,
        label_lut=np.arange(256, dtype=np.int16),
        ignore_id=255,
        mean_rgb=(122.675, 116.669, 104.008),
        crop_hw=(144, 176),
        patches="grid",
        patch_hw=(200, 240),
        patch_stride=90,
        patch_jitter=80,
        scales=(0.5, 0.75, 1.0, 1.25, 1.5, 0.613),
        mirror=True,
        seed=5,
    )
    iterator = SegmentationIter(reader, 4, 2, 4, threads=threads)
    found = [(b.data[0].asnumpy(), b.label[0].asnumpy(), b.index) for b in iterator]
    iterator.close()
    return found


def assert_equal(first, second):
    assert len(first) == len(second) > 4
    for one, other in zip(first, second):
        for a, b in zip(one, other):
            np.testing.assert_array_equal(a, b)


def test_lossless_records_and_the_cache_give_the_bits_of_direct_mode(data, tmp_path):
    assert prepare(data, tmp_path) == 5
    direct = batches(open_frames("folders", data, "train"))
    assert_equal(batches(open_frames("folders", tmp_path, "train")), direct)
    for room in (1, 100):  # MB: room for one frame, and for all
        assert_equal(batches(open_frames("folders", data, "train", cache_mb=room)), direct)
    assert_equal(batches(open_frames("folders", tmp_path, "train", cache_mb=1)), direct)


def test_jpeg_changes_images_a_little_and_labels_not_at_all(data, tmp_path):
    prepare(data, tmp_path, quality=95)
    frames, direct = RecordFrames(tmp_path, "train"), open_frames("folders", data, "train")
    for number in range(5):
        image, label = frames.read(number)
        expected, expected_label = direct.read(number)
        np.testing.assert_array_equal(label, expected_label)
        assert 0 < np.abs(image.astype(int) - expected).mean() < 3


def test_labels_are_read_without_decoding_images(data, tmp_path, monkeypatch):
    prepare(data, tmp_path)
    frames, direct = RecordFrames(tmp_path, "train"), open_frames("folders", data, "train")
    expected = [direct.read_label(number) for number in range(5)]
    monkeypatch.delattr(cv2, "imdecode")
    for number, label in enumerate(expected):
        np.testing.assert_array_equal(frames.read_label(number), label)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [((0, 301), (0, 467)), ((128, 256), (0, 1)), ((127, 129), (383, 385)), ((300, 301), (1, 466)),
     ((5, 5), (0, 9))],
)  # fmt: skip
def test_any_region_is_that_of_the_file(data, tmp_path_factory, rows, columns):
    out = tmp_path_factory.getbasetemp() / "regions"
    prepare(data, out)
    image, label = RecordFrames(out, "train").read(3, slice(*rows), slice(*columns))
    whole, whole_label = open_frames("folders", data, "train").read(3)
    place = (slice(*rows), slice(*columns))
    if rows[0] < rows[1]:
        np.testing.assert_array_equal(image, whole[place])
        np.testing.assert_array_equal(label, whole_label[place])
    else:
        assert image.size == label.size == 0


def test_the_files_are_mxnets_own_format(data, tmp_path):
    prepare(data, tmp_path)
    rec = mx.recordio.MXIndexedRecordIO(
        str(tmp_path / "train-0000.idx"), str(tmp_path / "train-0000.rec"), "r"
    )
    assert rec.keys == list(range(5 * 3 * 4))
    header, payload = mx.recordio.unpack(rec.read_idx(12))  # the second frame's first tile
    pixels = cv2.imdecode(np.frombuffer(payload[: header.id2], np.uint8), cv2.IMREAD_COLOR)
    expected = cv2.imread(str(data / "images/train/01.png"))[:128, :128]
    np.testing.assert_array_equal(pixels, expected)


def test_the_cache_keeps_to_its_limit(data):
    class Counting(FileFrames):
        reads = 0

        def read(self, *args):
            self.reads += 1
            return super().read(*args)

    one = HW[0] * HW[1] * 4
    frames = Counting(find_samples("folders", data, "train"))
    cached = CachedFrames(frames, 2 * one + one // 2)
    for _ in range(3):
        for number in range(5):
            cached.read(number, slice(0, 10), slice(0, 10))
    assert frames.reads == 2 + 3 * 3
    assert sum(a.nbytes + b.nbytes for a, b in cached._kept.values()) == 2 * one


@pytest.mark.parametrize("damage", ["flip", "cut", "lose", "short index", "joined index", "order"])
def test_a_damaged_record_is_named(data, tmp_path, damage):
    prepare(data, tmp_path, quality=90)
    rec = tmp_path / "train-0000.rec"
    idx, content = rec.with_suffix(".idx"), bytearray(rec.read_bytes())
    lines = idx.read_text().splitlines()
    if damage == "short index":
        idx.write_text("\n".join(lines[:-1]))
    elif damage == "joined index":
        idx.write_text("\n".join([*lines[:7], lines[7] + "\t" + lines[8], *lines[9:]]))
    elif damage == "order":
        idx.write_text("\n".join([*lines[:7], lines[8], lines[7], *lines[9:]]))
    if damage == "flip":
        content[len(content) // 2] ^= 1
    rec.write_bytes(content[:-500] if damage == "cut" else content)
    if damage == "lose":
        rec.with_suffix(".idx").unlink()
    with pytest.raises(DataError, match=r"train-0000\.(rec|idx)"):
        frames = RecordFrames(tmp_path, "train")
        for number in range(5):
            frames.read(number)
    manifest = read_manifest(tmp_path, "train")
    damaged = rec.name if damage in ("flip", "cut") else idx.name
    assert packing.damaged_files(tmp_path, manifest) == [damaged]


def test_any_flipped_bit_of_a_record_is_noticed_or_does_no_harm(tmp_path):
    rec, tile = tmp_path / "a.rec", np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    write_records(rec, tmp_path / "a.idx", [encode_frame(tile, tile[:, :, 0], None)])
    content = rec.read_bytes()
    for position in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << position % 8
        rec.write_bytes(damaged)
        try:
            [(image, label)] = Shard(rec).tiles(0, 1)
        except DataError:
            continue
        np.testing.assert_array_equal(image, tile)
        np.testing.assert_array_equal(label, tile[:, :, 0])


def test_more_shards_than_files_that_may_be_open(data, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "FRAMES_PER_SHARD", 1)
    prepare(data, tmp_path)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.open(tmp_path, os.O_RDONLY)
    os.close(spare)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 2, before[1]))
    try:
        frames = RecordFrames(tmp_path, "train")
        found = [frames.read(number)[0] for number in range(5)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    direct = open_frames("folders", data, "train")
    for number, image in enumerate(found):
        np.testing.assert_array_equal(image, direct.read(number)[0])


@pytest.mark.parametrize("missing", [1, 3000, 100_000])
def test_a_full_disk_leaves_no_short_shard(data, tmp_path, missing):
    """MXNet does not report the loss of the last block."""
    prepare(data, tmp_path / "whole")
    size = (tmp_path / "whole/train-0000.rec").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - missing, before[1]))
    try:
        with pytest.raises(
            DataError, match=r"train-0000\.rec: cannot be written; is the disk full"
        ):
            prepare(data, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "out").exists()
    prepare(data, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_damaged_record_of_an_earlier_pack_is_named(data, tmp_path):
    """A second pack without an error would hide that the disk damages files."""
    prepare(data, tmp_path)
    (tmp_path / "train.frames.json").unlink()
    progress = tmp_path / ".train-0000.json"
    progress.write_text('{"sett')
    with pytest.raises(DataError, match=r"\.train-0000\.json: damaged .* remove it"):
        prepare(data, tmp_path)
    progress.unlink()
    assert prepare(data, tmp_path) == 5


def test_an_unpacked_split_is_an_error_that_lists_the_packed_ones(data, tmp_path):
    prepare(data, tmp_path)
    with pytest.raises(DataError, match="split 'val' is not packed in it; found train"):
        open_frames("folders", tmp_path, "val")


def test_a_second_pack_does_nothing_and_other_settings_are_refused(data, tmp_path):
    prepare(data, tmp_path)
    assert prepare(data, tmp_path) == 0
    with pytest.raises(DataError, match="already packed, with other settings"):
        prepare(data, tmp_path, quality=90)


def test_too_little_room_is_said_before_anything_is_written(data, tmp_path, monkeypatch):
    monkeypatch.setattr(atomic.shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 20))
    with pytest.raises(
        RunError, match=r"5 frames takes about \d\.\d MB of disk space, and 1\.0 MB are free"
    ):
        prepare(data, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_bad_file_leaves_no_half_shard(data, tmp_path):
    root = write_frames(tmp_path / "data", 2)
    (root / "labels/train/01.png").write_bytes(b"")
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=r"labels/train/01\.png"):
        prepare(root, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.slow
def test_a_killed_pack_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    data = write_frames(tmp_path / "data", 12)
    monkeypatch.setattr(packing, "FRAMES_PER_SHARD", 2)
    prepare(data, tmp_path / "whole")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path;"
        "from tools.dataset import packing;"
        "from data_iter.frames import FileFrames; import time;"
        "from data_iter.datasets import find_samples; packing.FRAMES_PER_SHARD = 2;"
        "s = find_samples('folders', Path(sys.argv[2]), 'train');"
        "packing.pack(s, FileFrames(s), Path(sys.argv[3]), 'train', None,"
        "             lambda n: time.sleep(0.3))"
    )
    out = tmp_path / "out"
    killed = subprocess.Popen([sys.executable, "-c", code, str(PROJECT), str(data), str(out)])
    deadline = time.monotonic() + 120
    while len(list(out.glob(".*.json"))) < 2 and time.monotonic() < deadline:
        assert killed.poll() is None
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (out / "train.frames.json").exists()
    packed = prepare(data, out)
    assert 0 < packed < 12
    assert contents(out) == contents(tmp_path / "whole")
