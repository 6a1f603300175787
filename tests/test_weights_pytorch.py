"""PyTorch's ResNets: names and shapes as their libraries have them, and what can't be read."""

import os
import re
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from safetensors.numpy import save_file
from test_convert_weights import error_of, zoo_net

from tools import convert_weights
from tools.weights.backbone import STD_RGB
from train.params import read_params

NAMES = Path(__file__).parent / "names"  # lists made from the libraries themselves; README.md there


def shapes_of(name):
    """Read a list of names: {array: shape}."""
    shapes = {}
    for line in (NAMES / f"{name}.txt").read_text().splitlines()[1:]:
        layer, *arrays = line.split()
        for array in arrays:
            kind, _, shape = array.partition("=")
            shape = () if shape == "-" else tuple(map(int, shape.split(",")))
            shapes[f"{layer}.{kind}"] = shape
    return shapes


def arrays_of(name):
    """Arrays of those names and shapes, each of a different constant; they take no memory."""
    arrays = {}
    for number, (key, shape) in enumerate(shapes_of(name).items(), start=1):
        kind = np.int64 if key.endswith("num_batches_tracked") else np.float32
        arrays[key] = np.broadcast_to(np.asarray(number % 1000, kind), shape)
    return arrays


def read(arrays, monkeypatch):
    """Convert arrays as if a file held them."""
    from tools.weights import pytorch

    floats = {k: v for k, v in arrays.items() if v.dtype.kind == "f"}
    monkeypatch.setattr(pytorch, "read_checkpoint", lambda file: (floats, []))
    return pytorch.read_pytorch(Path("x.npz"))


PLAIN = [
    *(f"torchvision_resnet{depth}" for depth in (18, 34, 50)),
    "timm_resnet50s",
    *(f"transformers_resnet-{depth}" for depth in (18, 50)),
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in (
            "torchvision_resnet101", "torchvision_resnet152", "timm_resnet101s", "timm_resnet152s",
            "transformers_resnet-101", "transformers_resnet-152",
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_every_array_of_the_libraries_networks_finds_its_place(name, monkeypatch):
    arrays = arrays_of(name)
    backbone, (args, auxs), notes = read(arrays, monkeypatch)
    assert backbone.depth == int(re.search(r"\d+", name)[0])
    assert backbone.stem == ("3x3" if name.endswith("s") else "7x7")
    assert "the classifier of 1000 classes is left out" in notes
    classifier = [key for key in arrays if re.match(r"fc\.|classifier\.", key)]
    counters = [key for key in arrays if key.endswith("num_batches_tracked")]
    assert len(args) + len(auxs) == len(arrays) - len(classifier) - len(counters)
    first = "conv1_1_3x3_s2" if backbone.stem == "3x3" else "conv1_7x7_s2"
    values = {key: value.flat[0] for key, value in arrays.items() if value.ndim}
    found = {key: float(v.reshape(-1)[0].asscalar()) for key, v in {**args, **auxs}.items()}
    prefix = "resnet.embedder.embedder.convolution" if "transf" in name else (
        "conv1.0" if backbone.stem == "3x3" else "conv1")  # fmt: skip
    expected = values[f"{prefix}.weight"] / STD_RGB[0]
    assert found[f"{first}_weight"] == pytest.approx(expected, rel=1e-6)
    # The last block's last layers, by the libraries' own names.
    basic = backbone.depth < 50
    block, norm = (1, 2) if backbone.depth == 18 else (2, 2 if basic else 3)
    if "transformers" in name:
        norm = f"resnet.encoder.stages.3.layers.{block}.layer.{norm - 1}.normalization"
    else:
        norm = f"layer4.{block}.bn{norm}"
    ours = f"conv5_{2 if backbone.depth == 18 else 3}_" + ("3x3_2" if basic else "1x1_increase")
    for kind, theirs in (("gamma", "weight"), ("beta", "bias"), ("moving_mean", "running_mean"),
                         ("moving_var", "running_var")):  # fmt: skip
        assert found[f"{ours}/bn_{kind}"] == values[f"{norm}.{theirs}"], kind


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("timm_resnet50c", "its stem has 32, 32, 64 channels"),
        ("timm_resnet50d", "its stem has 32, 32, 64 channels"),
        ("timm_resnet50t", "its stem has"),
        ("timm_resnetv2_50", r"before each convolution \(v2\)"),
        ("timm_seresnet50", r"weigh their channels \(SE"),
        ("timm_resnet50_gn", "has no running_mean"),
        ("timm_resnext50_32x4d", r"have 32 groups \(ResNeXt\)"),
        ("timm_wide_resnet50_2", r"has 128 channels \(wide\)"),
        ("timm_resnest50d", "its stem has 32, 32, 64 channels"),
        ("torchvision_fasterrcnn_resnet50_fpn", "stands beside the backbone"),
        ("torchvision_deeplabv3_resnet50", "stands beside the backbone"),
    ],
)
def test_what_can_not_be_mapped_exactly_is_refused_by_name(name, reason, monkeypatch):
    from train.errors import RunError

    with pytest.raises(RunError, match=reason):
        read(arrays_of(name), monkeypatch)


def test_average_pooled_shortcuts_are_refused_whatever_the_stem(monkeypatch):
    from train.errors import RunError

    arrays = arrays_of("timm_resnet50d")
    for key, channels in (("conv1.0", 64), ("conv1.3", 64), ("conv1.6", 128)):
        arrays[f"{key}.weight"] = np.zeros((channels, 3, 3, 3), np.float32)
    with pytest.raises(RunError, match=r"average pooling \(d, e\)"):
        read(arrays, monkeypatch)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """GluonCV's ResNet-18 with random arrays: (its .params file, torchvision's names for them)."""
    file = tmp_path_factory.mktemp("zoo") / "zoo.params"
    zoo_net("resnet18_v1b", file)
    kinds = {"gamma": "weight", "beta": "bias"}
    arrays = {}
    for key, value in mx.nd.load(str(file)).items():
        layer, _, kind = key.rpartition(".")
        arrays[f"{layer}.{kinds.get(kind, kind)}"] = value.asnumpy()
    return file, arrays


def converted(file, tmp_path):
    out = tmp_path / "out.params"
    assert convert_weights.main(["pytorch", str(file), "--out", str(out)]) == 0
    args, auxs = read_params(out)
    return {name: value.asnumpy() for name, value in {**args, **auxs}.items()}


def test_the_same_arrays_give_what_gluoncvs_names_give(small, tmp_path, capsys):
    """test_convert_weights.py checks the reference, GluonCV's names, by GluonCV's forward pass."""
    zoo, arrays = small
    out = tmp_path / "zoo.params"
    arguments = ["gluoncv", "resnet18_v1b", "--params", str(zoo), "--out", str(out)]
    assert convert_weights.main(arguments) == 0
    options = capsys.readouterr().out.splitlines()[1]
    args, auxs = read_params(out)
    save_file(arrays, tmp_path / "x.safetensors")
    np.savez(tmp_path / "x.npz", **arrays)
    for file in ("x.safetensors", "x.npz"):
        ours = converted(tmp_path / file, tmp_path)
        assert options in capsys.readouterr().out
        assert ours.keys() == args.keys() | auxs.keys()
        for name, value in {**args, **auxs}.items():
            np.testing.assert_array_equal(ours[name], value.asnumpy(), err_msg=name)


def test_wrapped_and_narrow_arrays_are_read_and_said(small, tmp_path, capsys):
    arrays = small[1]
    np.savez(tmp_path / "x.npz", **arrays)
    plain = converted(tmp_path / "x.npz", tmp_path)
    capsys.readouterr()
    for prefix in ("module.", "backbone.", "state_dict."):
        wrapped = {prefix + k if k[:3] != "fc." else k: v for k, v in arrays.items()}
        np.savez(tmp_path / "x.npz", **wrapped)
        ours = converted(tmp_path / "x.npz", tmp_path)
        assert f"'{prefix}' is taken off" in capsys.readouterr().out
        assert all((ours[name] == plain[name]).all() for name in plain)
    halves = {key: value.astype(np.float16) for key, value in arrays.items()}
    save_file(halves, tmp_path / "x.safetensors")
    ours = converted(tmp_path / "x.safetensors", tmp_path)
    assert "float16 are widened" in capsys.readouterr().out
    name = "conv5_2_3x3_2_weight"
    np.testing.assert_array_equal(ours[name], halves["layer4.1.conv2.weight"].astype(np.float32))


def test_bfloat16_is_the_upper_half_of_float32(tmp_path):
    from tools.weights.arrays import read_checkpoint

    header = b'{"a":{"dtype":"BF16","shape":[3],"data_offsets":[0,6]}}'
    values = np.array([1.5, -2.0, 3.140625], np.float32)  # exact in bfloat16
    upper = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    file = tmp_path / "x.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + upper)
    arrays, notes = read_checkpoint(file)
    np.testing.assert_array_equal(arrays["a"], values)
    assert notes == ["arrays in bfloat16 are widened to float32"]


def test_bad_files_are_refused_in_one_sentence(small, tmp_path, capsys):
    arrays = small[1]
    out = ["--out", tmp_path / "out.params"]

    def refused(file):
        return error_of(capsys, "pytorch", file, *out)

    file = tmp_path / "x.safetensors"
    save_file(arrays, file)
    whole = file.read_bytes()
    for damaged in (whole[:-1000], whole[:5], b"", b"not a network at all"):
        file.write_bytes(damaged)
        assert "not a whole safetensors file" in refused(file)
    file = tmp_path / "x.npz"
    np.savez(file, **arrays)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert "not a whole .npz" in refused(file)
    np.savez_compressed(file, **{"a" * 40: np.arange(1000, dtype=np.float32)})
    damaged = bytearray(file.read_bytes())
    damaged[200:300] = bytes(100)  # in the middle of the deflated values
    file.write_bytes(damaged)
    assert "not a whole .npz" in refused(file)
    damaged = bytearray(whole)
    damaged[whole.index(b"PK\x01\x02") + 10] = 99  # a method of compression that nobody has
    file.write_bytes(damaged)
    assert "not a whole .npz" in refused(file)
    for suffix in ("npz", "safetensors"):
        os.mkfifo(tmp_path / f"pipe.{suffix}")
        assert "expected a file, found a pipe" in refused(tmp_path / f"pipe.{suffix}")
    np.savez(file, a=np.array([{}], object))
    assert "not a whole .npz" in refused(file)
    for change, message in (
        ({"layer2.0.bn1.running_mean": np.full(128, np.nan, np.float32)}, "holds 128 values"),
        ({"layer2.0.bn1.running_var": np.full(128, -1, np.float32)}, "is below 0"),
        ({"layer2.0.conv1.weight": np.zeros((7, 3), np.float32)}, "is (7, 3), ResNet-18 has"),
        ({"layer3.5.conv1.weight": np.zeros((7, 3), np.float32)}, "2, 2, 3, 2 basic blocks"),
        ({"neck.weight": np.zeros((7, 3), np.float32)}, "neck.weight (7, 3) is not in ResNet-18"),
        ({"conv1.weight": np.zeros((64, 3, 7, 7), np.int8)}, "stored as int8"),
        ({"b.layer1.0.conv1.weight": np.zeros(3, np.float32)}, "several networks"),
    ):
        np.savez(file, **{**arrays, **change})
        assert message in refused(file)
    np.savez(file, weight=np.zeros(3, np.float32))
    assert "no ResNet under known names" in refused(file)
    assert "no such file" in refused(tmp_path / "nowhere.npz")
    assert "expected a file that ends in" in refused(tmp_path / "x.onnx")
    assert not (tmp_path / "out.params").exists()


def test_without_pytorch_a_pickle_is_not_opened(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # import torch raises ImportError
    file = tmp_path / "x.pth"
    file.write_bytes(b"anything")
    error = error_of(capsys, "pytorch", file, "--out", tmp_path / "x.params")
    assert "PyTorch is needed" in error and "save_file(" in error


def test_a_pickle_that_wants_to_run_code_is_not_run(tmp_path, capsys):
    pytest.importorskip("torch", reason="PyTorch is no dependency of this project")
    import os
    import pickle

    class Mean:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    file = tmp_path / "x.pth"
    file.write_bytes(pickle.dumps({"conv1.weight": Mean()}))
    error = error_of(capsys, "pytorch", file, "--out", tmp_path / "x.params")
    assert "no code of it was run" in error
    assert not (tmp_path / "ran").exists() and not (tmp_path / "x.params").exists()


def test_pytorchs_own_files_are_unwrapped(tmp_path, capsys):
    torch = pytest.importorskip("torch", reason="PyTorch is no dependency of this project")
    # Without the fixture, whose GluonCV refuses to be imported beside PyTorch 2.
    arrays = {k: v.copy() for k, v in arrays_of("torchvision_resnet18").items() if v.ndim}
    np.savez(tmp_path / "x.npz", **arrays)
    plain = converted(tmp_path / "x.npz", tmp_path)
    tensors = {f"module.{key}": torch.from_numpy(value) for key, value in arrays.items()}
    torch.save({"epoch": 3, "model": {"state_dict": tensors}}, tmp_path / "x.pth")
    ours = converted(tmp_path / "x.pth", tmp_path)
    said = capsys.readouterr().out
    for part in ("under 'model'", "under 'state_dict'", "'module.' is taken off"):
        assert part in said
    assert all((ours[name] == plain[name]).all() for name in plain)
