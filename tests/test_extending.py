"""The examples of docs/extending.md train and predict, and an incomplete addition is refused.

No package has these additions: they are the files of the page, or functions of this file.
"""

import importlib
import re
from pathlib import Path

import cv2
import mxnet as mx
import numpy as np
import pytest
import training

from configs import ConfigError
from configs.datasets import load_dataset
from configs.loader import load_config
from symbols.decoders import DECODERS, Decoder
from symbols.head import OWN
from train.errors import RunError
from train.network import build_symbol
from train.run_dir import RunDir
from train.segmenter import Segmenter
from train.start import check

PAGE = Path(__file__).resolve().parents[1] / "docs" / "extending.md"
TABLES = {
    "A decoder": ("symbols.decoders", "DECODERS"),
    "A backbone depth": ("symbols.resnet", "DEPTHS"),
    "Rates of dilation": ("symbols.hdc", "SCHEDULES"),
    "A learning-rate schedule": ("train.schedule", "SCHEDULES"),
    "A loss": ("symbols.losses", "LOSSES"),
    "A folder layout": ("data_iter.datasets", "LAYOUTS"),
}


def add_examples(monkeypatch):
    """Follow the page: run its files, then add its line to each table."""
    sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
    assert [section.splitlines()[0] for section in sections] == [*TABLES]
    for section in sections:
        module, name = TABLES[section.splitlines()[0]]
        module = importlib.import_module(module)
        *files, line = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
        found = dict(vars(module))
        for text in files:
            file = re.match(r"# (\w+)/\w+\.py\n", text)
            exec(text, found := {**found, "__package__": file[1]})
        for key, entry in eval("{" + line + "}", found).items():
            monkeypatch.setitem(getattr(module, name), key, entry)


def halves(features, head):
    """A decoder: one deconvolution, for predictions at half the downsampling rate."""
    return mx.sym.Deconvolution(
        features, num_filter=head.outputs, kernel=(4, 4), stride=(2, 2), pad=(1, 1),
        name=f"{OWN}{head.name}_halves",
    )  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Write frames in the usual folders, and the same ones in the folders of the page's layout."""
    root = training.write_frames(tmp_path_factory.mktemp("frames"), train=8, val=2)
    for split in ("train", "val"):
        (root / split).mkdir()
        for file in (root / "images" / split).iterdir():
            cv2.imwrite(str(root / split / f"{file.stem}.jpg"), cv2.imread(str(file)))
            label = (root / "labels" / split / file.name).read_bytes()
            (root / split / f"{file.stem}_mask.png").write_bytes(label)
    (root / "paired.yaml").write_text("name: pairs\nlayout: paired\nclasses: [ground, box]\n")
    return root


SHORT = ("solver.log_every=1", "solver.epochs=2")
EXAMPLES = (
    "network.decoder=squeezed", "network.depth=14", "network.dilation=rising",
    "solver.schedule=exponential", "solver.loss=squared+dice",
)  # fmt: skip


@pytest.mark.parametrize(
    "options", [EXAMPLES, ("network.decoder=halves", "solver.loss=ohem+dice", "solver.warmup=2")]
)
def test_what_is_added_trains_validates_and_predicts(root, tmp_path, monkeypatch, options):
    add_examples(monkeypatch)
    monkeypatch.setitem(DECODERS, "halves", Decoder(halves, lambda down, cell: (down // 2, 1)))
    options = [*options, f"data.dataset={root / 'paired.yaml'}", *SHORT]
    out = tmp_path / "run"
    ended = training.train(root, out, *(f"--set={option}" for option in options))
    assert ended.returncode == 0, ended.stderr
    records = training.log(out)
    losses = [record["loss"] for record in records if "loss" in record]
    assert len(losses) == 4 and losses[-1] < losses[0]
    assert [r["epoch"] for r in records if r.get("val_miou") is not None] == [1, 2]
    if options[0] == EXAMPLES[0]:
        rates = [record["lr"] for record in records if "lr" in record]
        assert rates == pytest.approx([0.05 * 0.01 ** (n / 4) for n in range(4)])
    config, dataset = RunDir(out).load()
    params = RunDir(out).load_params()
    assert any(name.startswith(f"{OWN}pairs_") for name in params[0])
    segmenter = Segmenter(build_symbol(config, dataset), *params, config.network, mx.cpu())
    labels = segmenter.labels(np.zeros((37, 45, 3), np.uint8))
    assert labels.shape == (37, 45) and labels.max() <= 1


def blockless(features, head):
    return mx.sym.Convolution(features, num_filter=head.classes, kernel=(1, 1), name="fc1_x")


def nameless(features, head):
    return mx.sym.Convolution(features, num_filter=head.outputs, kernel=(1, 1))


def misfit(features, head):
    return mx.sym.elemwise_add(features, halves(features, head), name="misfit")


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda features, head: None, "build to return a Symbol, it returns None"),
        (blockless,
         r"maps of \(1, 176, 8, 12\) for an image of 64x96, by its layout of cell 2 and block 4; "
         r"it builds \(1, 11, 8, 12\)"),
        (halves, r"it builds \(1, 176, 16, 24\)"),
        (nameless, "names begin with fc1_, .* it has convolution"),
        (misfit, "layers that fit each other .*Error.*misfit"),
    ],
    ids=["nothing", "channels", "size", "names", "misfit"],
)  # fmt: skip
def test_what_a_decoder_lacks_is_said(root, monkeypatch, build, said):
    layout = DECODERS["duc"].layout
    monkeypatch.setitem(DECODERS, "mine", Decoder(build, layout))
    config = load_config(root / "tiny.cfg", ["network.decoder=mine"])
    with pytest.raises(ConfigError, match=rf"--set: \[network\] decoder = mine: .*{said}") as error:
        build_symbol(config, load_dataset("camvid"))
    assert "\n" not in str(error.value)


def test_a_decoder_needs_a_layout():
    with pytest.raises(TypeError, match="layout"):
        Decoder(halves)


@pytest.mark.parametrize(
    ("section", "key", "value", "said"),
    [
        ("network", "depth", "100", "one of 18, 26, 34, 38, 50, 101, 152 (did you mean 101?)"),
        ("network", "decoder", "dcu", "one of duc, bilinear, deconv, deconv2x4 (did you mean duc?"),
        ("network", "dilation", "biger", "(did you mean bigger?), or the rates of res4; res5"),
        ("solver", "loss", "cross_entropy+dic", "focal, ohem, dice (did you mean dice?)"),
        ("solver", "schedule", "pol", "one of poly, step, cosine (did you mean poly?)"),
    ],
)
def test_an_unknown_name_is_said_with_its_file_and_the_nearest(tmp_path, section, key, value, said):
    file = tmp_path / "mine.cfg"
    file.write_text(f"[{section}]\n{key} = {value}\n")
    config, dataset = load_config(file), load_dataset("camvid")
    with pytest.raises(ConfigError) as error:
        build_symbol(config, dataset, training=True)
        check(config, dataset, [mx.cpu()], tmp_path)
    assert f"{file}: [{section}] {key} = {value}: expected " in str(error.value)
    assert said in str(error.value)


def test_servers_need_a_rule_of_their_own(root, tmp_path, monkeypatch):
    add_examples(monkeypatch)
    options = ["solver.schedule=exponential", "solver.kvstore=dist_async"]
    config = load_config(root / "tiny.cfg", options)
    with pytest.raises(RunError, match="exponential is not known to the servers"):
        check(config, load_dataset("camvid"), [mx.cpu()], tmp_path)
