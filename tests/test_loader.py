"""Configuration files: values of the paper, inheritance, and a sentence for each mistake."""

import os
from pathlib import Path

import pytest

from configs import ConfigError
from configs.loader import differences, dump, load_config

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def test_duc_hdc_holds_the_papers_values():
    config = load_config(CONFIGS / "duc_hdc.cfg")
    network, data, solver = config.network, config.data, config.solver
    assert (network.depth, network.stem, network.downsample, network.decoder) == (
        101,
        "7x7",
        8,
        "duc",
    )
    assert (network.cell, network.dilation, network.aspp) == (2, "bigger", (6, 12, 18, 24, 30, 36))
    assert (data.dataset, data.patches, data.crop_hw) == ("cityscapes", "7fold", (880, 880))
    assert (solver.lr, solver.power, solver.momentum) == (2.5e-4, 0.9, 0.9)
    assert (solver.weight_decay, solver.batch_size, solver.epochs) == (5e-4, 4, 20)


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.cfg")), ids=lambda file: file.stem)
def test_a_dump_reads_back_as_the_same_config(file, tmp_path):
    config = load_config(file)
    copy = tmp_path / "copy.cfg"
    copy.write_text(dump(config))
    assert load_config(copy) == config


def test_base_then_child_then_overrides(tmp_path):
    (tmp_path / "a.cfg").write_text("[solver]\nlr = 0.5\nepochs = 7\n")
    (tmp_path / "b.cfg").write_text("[experiment]\nbase = a.cfg\n[solver]\nlr = 0.25  # why\n")
    config = load_config(tmp_path / "b.cfg", ["solver.batch_size=3", "data.mirror=false"])
    assert (config.solver.lr, config.solver.epochs, config.solver.batch_size) == (0.25, 7, 3)
    assert config.data.mirror is False
    assert differences(load_config(tmp_path / "b.cfg"), config) == [
        "data.mirror: true -> false",
        "solver.batch_size: 12 -> 3",
    ]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[solver]\nlearning = 1\n", ["[solver]", "'learning'"]),
        ("[solver]\nepoch = 1\n", ["'epoch'", "'epochs'"]),
        ("[network]\nasp = 1\n", ["'asp'", "'aspp'"]),
        ("[nework]\naspp = 1\n", ["[nework]", "'network'"]),
        ("[solver]\nepochs = 1.5\n", ["epochs = 1.5", "a whole number"]),
        ("[solver]\nlr = fast\n", ["lr = fast", "a number"]),
        ("[solver]\nlr = inf\n", ["lr = inf", "a number"]),
        ("[network]\nmean_rgb = 1,nan,3\n", ["mean_rgb = 1,nan,3", "a number"]),
        ("[solver]\nbatch_size = 0\n", ["batch_size = 0", "at least 1"]),
        ("[data]\nmirror = maybe\n", ["mirror = maybe", "true or false"]),
        ("[data]\ncrop_hw = 544\n", ["crop_hw = 544", "2 numbers"]),
        ("[data]\ncrop_hw = 541,544\n", ["541,544", "multiple", "8"]),
        ("[network]\ndownsample = 4\n", ["pool_pad 1"]),
        ("[solver]\nlr = 1\nlr = 2\n", ["lr", "already exists"]),
        ("lr = 1\n", ["no section headers"]),
        ("[experiment]\nbase = nowhere.cfg\n", ["nowhere.cfg", "no such"]),
        ("[experiment]\nbase = x.cfg\n", ["leads back"]),
        ("[experiment]\nbase = a\0b\n", ["line 2", "NUL"]),
        ("[data]\ncrop_hw = 100000000,100000000\n", ["crop_hw", "at most 32768"]),
        ("[solver]\nbatch_size = 10000000000\n", ["batch_size", "at most 65536"]),
        ("[network]\naspp = 6,100000000000000000000\n", ["aspp", "at most 32768"]),
        ("[data]\nscales = 1,1e9\n", ["scales", "at most 100"]),
        ("[data]\nblur = 1e9\n", ["blur", "at most 1000"]),
        ("[data]\npatch_hw = 9,10000000000\n", ["patch_hw", "at most 32768"]),
        ("[data]\npatch_jitter = 10000000000\n", ["patch_jitter", "at most 32768"]),
        ("[experiment]\nseed = 2147483648\n", ["seed", "at most 2147483647"]),
        ("[solver]\nlr = 1e39\n", ["lr = 1e39", "a number"]),  # MXNet's are float32
        ("[data]\ntrain_split = a\n  b\n", ["train_split = a b", "one line"]),
        (f"[solver]\nwarmup = 1{'0' * 400}\n", ["warmup", "a whole number"]),
    ],
)
def test_a_mistake_is_one_sentence_that_names_it(tmp_path, text, parts):
    file = tmp_path / "x.cfg"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(file)
    message = str(error.value)
    assert "\n" not in message
    for part in [str(tmp_path), *parts]:
        assert part in message


@pytest.mark.parametrize("override", ["lr=1", "solver.lr", "solver.lrr=1", "=1"])
def test_a_bad_override_is_refused(override):
    with pytest.raises(ConfigError, match="--set"):
        load_config(CONFIGS / "base.cfg", [override])


@pytest.mark.parametrize("value", ["a #1", "#a", "a\nb", "a\rb", "a\t#b"])
@pytest.mark.parametrize("key", ["data.train_split", "solver.freeze"])
def test_an_override_that_would_be_cut_in_the_run_folder_is_refused(key, value):
    with pytest.raises(ConfigError, match="expected one line without ' #'") as caught:
        load_config(CONFIGS / "base.cfg", [f"{key}={value}"])
    assert "\n" not in str(caught.value)


def test_an_override_that_is_no_comment_is_taken_whole(tmp_path):
    config = load_config(CONFIGS / "base.cfg", ["data.train_split=a#1 = b; c"])
    assert config.data.train_split == "a#1 = b; c"
    (tmp_path / "copy.cfg").write_text(dump(config))
    assert load_config(tmp_path / "copy.cfg") == config


@pytest.mark.parametrize("content", ["root:secret:1\n", "[x]\nsecret\n", "[x]\n[x]\nsecret = 1\n"])
def test_a_base_that_is_another_file_is_not_quoted(tmp_path, content):
    (tmp_path / "shadow").write_text(content)
    (tmp_path / "x.cfg").write_text("[experiment]\nbase = shadow\n")
    with pytest.raises(ConfigError, match=r"shadow: line \d") as caught:
        load_config(tmp_path / "x.cfg")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("kind", ["pipe", "folder", "large", "latin"])
def test_a_configuration_is_a_small_text_file(tmp_path, kind):
    file = tmp_path / "x.cfg"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.write_bytes(b"#" * (1 << 21) if kind == "large" else b"[solver]  # \xe4")
    with pytest.raises(ConfigError, match=r"x\.cfg: (cannot be read|2097152 bytes|not UTF-8)"):
        load_config(file)


def test_a_byte_order_mark_is_no_content(tmp_path):
    (tmp_path / "x.cfg").write_bytes(b"\xef\xbb\xbf[solver]\r\nlr = 3\r\n")
    assert load_config(tmp_path / "x.cfg").solver.lr == 3
