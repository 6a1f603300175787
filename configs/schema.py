"""Every configuration key, once: its type, default, unit and source in the paper.

The packages that build decoders, depths, dilations, schedules and losses hold the tables of their
names. This package does not import them. They report an unknown name with :meth:`Config.error`.

The defaults are the settings that all of the paper's Cityscapes experiments share (section 4.1.1);
where the paper is silent they are the constants of the authors' released code (TuSimple-DUC).
A ``.cfg`` file only says what differs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import ConfigError
from .values import key

LONGEST_SIDE = 32768  # pixels; MXNet fails to plan for much larger inputs


@dataclass(frozen=True)
class Experiment:
    """What distinguishes this run from others with the same settings."""

    seed: int = key(
        0,
        "seeds the initialiser, the sample order and the augmentation",
        at_least=0,
        at_most=2**31 - 1,
    )


@dataclass(frozen=True)
class Network:
    """The graph: encoder (section 3.2), head and decoder (section 3.1)."""

    depth: int = key(101, "layers of the ResNet: 18, 34 (basic blocks), 26, 38, 50, 101 or 152")
    stages: int = key(5, "last residual stage: 5, or 4 for a small network", choices=(4, 5))
    width: float = key(
        1.0, "multiplies every channel count of the backbone", at_least=0.01, at_most=16
    )
    stem: str = key(
        "7x7", "first layers: one 7x7, or three 3x3 (section 4.1.4)", choices=("7x7", "3x3")
    )
    stride_in: str = key("1x1", "bottleneck convolution with the stride", choices=("1x1", "3x3"))
    pool_pad: int = key(0, "padding of the 3x3/2 max-pool: 0 release, 1 GluonCV", choices=(0, 1))
    downsample: int = key(8, "input pixels per feature pixel (DS of Table 1)", choices=(4, 8))
    dilation: str = key(
        "plain",
        "none, plain, conv, rf, bigger, release, or rates of res4; res5, as in 1,2,5,9; 5,9,17",
    )
    aspp: tuple[int, ...] = key(
        (6, 12, 18, 24), "dilation of each parallel 3x3 path", at_least=1, at_most=LONGEST_SIDE
    )
    decoder: str = key("duc", "duc, bilinear, deconv or deconv2x4 (section 4.1.2)")
    cell: int = key(
        1, "DUC: side in pixels of the square that one prediction covers", choices=(1, 2, 4)
    )
    bn_eps: float = key(1e-6, "added to the variance", at_least=0)
    bn_momentum: float = key(0.9995, "of the moving statistics while they are learned", at_least=0)
    mean_rgb: tuple[float, ...] = key(
        (122.675, 116.669, 104.008),
        "subtracted from the image, 0..255; belongs to the weights",
        length=3,
    )

    @property
    def graph_options(self) -> dict[str, Any]:
        """The keys that shape the graph, by name: arguments of ``symbols.get_symbol``."""
        return {name: value for name, value in vars(self).items() if name != "mean_rgb"}


@dataclass(frozen=True)
class Data:
    """From the images of a data set to the crops of a batch."""

    dataset: str = key("cityscapes", "a name in configs/datasets, or the path of your own .yaml")
    train_split: str = key("train", "split, several joined by '+', or a tab-separated list file")
    val_split: str = key("val", "as train_split; empty: no validation")
    patches: str = key(
        "12fold",
        "regions visited once per epoch: 12fold, 7fold (section 4.1), grid (every patch_stride and "
        "at the borders), stride (patch_stride alone), or the image",
        choices=("12fold", "7fold", "grid", "stride", "image"),
    )
    patch_hw: tuple[int, ...] = key(
        (800, 800),
        "grid, stride: height,width of a region, pixels",
        at_least=1,
        at_most=LONGEST_SIDE,
        length=2,
    )
    patch_stride: int = key(100, "grid, stride: pixels between regions", at_least=1)
    patch_jitter: int = key(
        80,
        "7fold: pixels of the image that a crop's centre may move either way",
        at_least=0,
        at_most=LONGEST_SIDE,
    )
    crop_hw: tuple[int, ...] = key(
        (544, 544), "height,width of a training crop", at_least=1, at_most=LONGEST_SIDE, length=2
    )
    scales: tuple[float, ...] = key(
        (0.5, 0.75, 1.0, 1.25, 1.5),
        "resize factors, one drawn for each crop (default: release)",
        at_least=0.01,
        at_most=100,
    )
    mirror: bool = key(True, "flip left to right with probability 1/2")
    jitter: tuple[float, ...] = key(
        (0.0, 0.0, 0.0, 0.0),
        "largest change of brightness, contrast, saturation (shares of 1) and hue (share of 180°)",
        at_least=0,
        at_most=1,
        length=4,
    )
    blur: float = key(
        0.0, "largest random Gaussian blur, pixels (standard deviation)", at_least=0, at_most=1000
    )
    rotate: float = key(0.0, "largest random rotation either way, degrees", at_least=0, at_most=180)
    queue: int = key(4, "largest number of batches prepared ahead", at_least=1, at_most=1024)
    threads: int = key(
        0, "threads that prepare batches; 0: one for each core", at_least=0, at_most=1024
    )
    cache_mb: int = key(0, "MB of memory for decoded frames; 0: no cache", at_least=0)
    on_bad_sample: str = key(
        "stop",
        "an unusable file: stop ends the run, skip logs it and leaves it out",
        choices=("stop", "skip"),
    )
    max_bad_share: float = key(
        0.01, "skip: more than this share of unusable frames ends the run", at_least=0
    )
    compare_labels: bool = key(
        False, "on a resume, also compare the content of the training labels, which reads them all"
    )


@dataclass(frozen=True)
class Solver:
    """SGD as in section 4.1.1."""

    lr: float = key(2.5e-4, "initial learning rate", at_least=0)
    schedule: str = key(
        "poly", "lr over the run: poly (paper), step (release's training), cosine to 0"
    )
    warmup: int = key(
        0,
        "iterations at the start in which lr rises linearly; poly and cosine begin after them",
        at_least=0,
    )
    power: float = key(0.9, "poly: lr * (1 - iteration / iterations) ** power", at_least=0)
    step_epochs: int = key(5, "step: epochs between two reductions of lr", at_least=1)
    step_factor: float = key(0.5, "step: factor of each reduction of lr", at_least=0)
    momentum: float = key(0.9, "of SGD", at_least=0)
    weight_decay: float = key(5e-4, "L2, on weights and BN gammas, not on biases", at_least=0)
    clip_gradient: float = key(
        5.0, "bound on each gradient element; 0: none (release: 5)", at_least=0
    )
    batch_size: int = key(12, "crops per iteration over all devices", at_least=1, at_most=65536)
    accumulate: int = key(
        1,
        "parts of a batch that are computed one after the other, which needs less memory",
        at_least=1,
    )
    epochs: int = key(20, "how often every patch is visited", at_least=1, at_most=10**6)
    stop_after: int = key(
        0,
        "end the run after this many epochs without a better validation mIoU; 0: never",
        at_least=0,
    )
    learn_bn_epochs: int = key(
        0,
        "epochs at the start that learn the BN statistics, or all; then fixed (section 4.1.3)",
        at_least=0,
        word="all",
    )
    fixed_bn: str = key(
        "statistics",
        "what of BN is fixed in the other epochs: its statistics (release), or all four arrays",
        choices=("statistics", "all"),
    )
    loss: str = key(
        "cross_entropy",
        "cross_entropy (paper), focal, ohem, dice, or several joined by +: focal+dice",
    )
    normalization: str = key(
        "valid",
        "gradient. valid: mean of the devices' means over valid pixels; fixed: mean over all "
        "pixels; release: sum of the devices' means over valid pixels, divided by batch_size",
        choices=("valid", "fixed", "release"),
    )
    class_weights: tuple[float, ...] = key(
        (),
        "factor of each train id's loss, in their order; empty: all alike (paper); "
        "auto: from the training labels",
        at_least=0,
        word="auto",
    )
    init_magnitude: float = key(2.34, "of Xavier(uniform, in) for new layers (release)", at_least=0)
    init_from: str = key(
        "",
        "run folder or .params with the initial parameters; none: random ones even if BN is fixed",
    )
    freeze: tuple[str, ...] = key(
        (), "patterns of parameters to leave as they are: conv1_*,conv2_*"
    )
    backbone_lr_mult: float = key(1.0, "multiplies lr of the encoder's parameters", at_least=0)
    head_lr_mult: float = key(
        1.0, "multiplies lr of the head's and decoder's parameters", at_least=0
    )
    kvstore: str = key(
        "dist_sync",
        "how the gradients of several workers are combined (train/launch.py); one worker uses none",
        choices=("dist_sync", "dist_device_sync", "dist_async"),
    )
    checkpoint_every: int = key(
        0, "iterations between checkpoints within the epochs; 0: only after each epoch", at_least=0
    )
    keep_checkpoints: int = key(3, "newest checkpoints that are kept, besides the best", at_least=1)
    log_every: int = key(20, "iterations between lines of the log", at_least=1)

    @property
    def source(self) -> str:
        """Where the first parameters come from; empty: they are drawn at random."""
        return "" if self.init_from == "none" else self.init_from


@dataclass(frozen=True)
class Crf:
    """Fully connected CRF on top of a prediction (section 4.1.2; energy of DeepLab-V2)."""

    sigma_alpha: float = key(
        15.0, "bilateral kernel: standard deviation of the position, pixels", at_least=0.01
    )
    sigma_beta: float = key(
        3.0, "bilateral kernel: standard deviation of the colour, 0..255", at_least=0.01
    )
    sigma_gamma: float = key(1.0, "position kernel: standard deviation, pixels", at_least=0.01)
    w1: float = key(3.0, "weight of the bilateral kernel (position and colour)", at_least=0)
    w2: float = key(3.0, "weight of the position kernel", at_least=0)
    iterations: int = key(10, "mean-field steps (DeepLab: 10)", at_least=1, at_most=10**6)


@dataclass(frozen=True)
class Config:
    """One resolved experiment; immutable.

    ``sources`` maps each key that was given, such as ``solver.lr``, to its file or option.
    """

    experiment: Experiment = dataclasses.field(default_factory=Experiment)
    network: Network = dataclasses.field(default_factory=Network)
    data: Data = dataclasses.field(default_factory=Data)
    solver: Solver = dataclasses.field(default_factory=Solver)
    crf: Crf = dataclasses.field(default_factory=Crf)
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def error(self, section: str, name: str, expected: str) -> ConfigError:
        """Return an error that says where an unusable value was read and what was expected."""
        source = self.sources.get(f"{section}.{name}", "the default")
        found = getattr(getattr(self, section), name)
        return ConfigError(f"{source}: [{section}] {name} = {found}: expected {expected}")


SECTIONS: dict[str, type] = {
    "experiment": Experiment,
    "network": Network,
    "data": Data,
    "solver": Solver,
    "crf": Crf,
}


def check_together(config: Config) -> None:
    """Check the keys against each other; raises ``ConfigError``."""
    network, data, solver = config.network, config.data, config.solver
    if network.downsample == 4 and network.pool_pad == 0:
        raise ConfigError(
            "network.downsample 4 needs network.pool_pad 1: "
            "without padding the pooled map is one pixel short of a quarter of the input"
        )
    if not network.aspp or not data.scales:
        raise ConfigError("network.aspp and data.scales need at least one number each")
    if any(side % network.downsample for side in data.crop_hw):
        height, width = data.crop_hw
        raise ConfigError(
            f"data.crop_hw {height},{width} is not a multiple of network.downsample "
            f"{network.downsample}"
        )
    if solver.learn_bn_epochs > solver.epochs:
        raise ConfigError(
            f"solver.learn_bn_epochs {solver.learn_bn_epochs} exceeds solver.epochs {solver.epochs}"
        )
