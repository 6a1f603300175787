"""Show what a dilation schedule does to the receptive field: the paper's section 3.2 in numbers.

It shows M_i of equation (2) and the goal M_2 <= 3, the receptive field, its increase as Table 2
counts it beside the printed figure, the share of the receptive field that is sampled, and a picture
like Figure 2. Sizes are in feature pixels, at 1/8 of the image (1/4 at downsample 4).

    python tools/analyse_hdc.py                              all named schedules, one line each
    python tools/analyse_hdc.py bigger --out bigger.png      one of them
    python tools/analyse_hdc.py "1,2,7; 3,5,9" --depth 152   rates of res4; res5, repeated
    python tools/analyse_hdc.py 2,2,2 --out figure2a.png     just these layers
    python tools/analyse_hdc.py --config configs/duc_hdc.cfg
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: make the project importable, and only the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from train.runtime import command  # isort: skip  # sets thread counts before MXNet loads

import argparse
from collections import Counter

import numpy as np
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

from configs.errors import ConfigError
from configs.loader import load_config
from symbols import hdc
from symbols.hdc import Rates
from symbols.resnet import DEPTHS, convolutions
from train.atomic import atomic_write

WIDEST = 4096  # feature pixels; a larger receptive field is a mistake and would take GB
PANEL = 260  # side in pixels of each picture of a receptive field
PANELS = 5  # layers of one group that are drawn
BLUE, RED, WHITE, GRID = (66, 114, 196), (214, 39, 40), (255, 255, 255), (205, 205, 205)


@command
def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("schedule", nargs="?", help=f"{', '.join(hdc.SCHEDULES)}, or rates")
    parser.add_argument("--config", type=Path, help="take schedule, depth and downsample from it")
    parser.add_argument("--depth", type=int, default=101, choices=sorted(DEPTHS))
    parser.add_argument("--out", type=Path, help="save the picture as this PNG")
    options = parser.parse_args(argv)
    console = Console(markup=False)
    if options.schedule and options.config:
        raise ConfigError("give a schedule or --config, not both")
    if not options.schedule and not options.config:
        if options.out:
            raise ConfigError("--out needs one schedule to draw")
        console.print(comparison(options.depth))
        return 0
    title, stages, printed = read_stages(options.schedule, options.config, options.depth)
    check_drawable(stages)
    if options.out:  # before a reader of the output can leave
        with atomic_write(options.out) as temporary:
            picture(stages).save(temporary, format="PNG")
    console.print(f"{title}: {sum(map(len, stages.values()))} dilated 3x3 convolutions")
    for table in (groups_table(stages), stacks_table(stages)):
        console.print(table)
    console.print(increase_line(stages, printed), soft_wrap=True)
    if options.out:
        console.print(f"saved {options.out}")
    return 0


def read_stages(
    schedule: str | None, config: Path | None, depth: int
) -> tuple[str, dict[str, Rates], int | None]:
    """Return a title, each stage's rates in the order of the forward pass, and Table 2's figure."""
    if schedule and schedule.replace(",", "").replace(" ", "").isdecimal():
        res4, _ = hdc.schedule(f"{schedule}; 1", (0, 0, schedule.count(",") + 1, 0))
        return "Layers", {"layers": res4}, None
    finer = 1
    if config:
        network = load_config(config).network
        schedule, depth, finer = network.dilation, network.depth, 8 // network.downsample
    res4, res5 = hdc.schedule(str(schedule), convolutions(depth))
    stages = {"res4": res4, "res5": res5}
    if finer > 1:  # symbols.resnet doubles every rate after the removed stride
        stages = {"res3": (1,) * convolutions(depth)[1], **stages}
        stages = {name: tuple(r * finer for r in rates) for name, rates in stages.items()}
    printed = hdc.PRINTED_INCREASE.get(str(schedule)) if (depth, finer) == (101, 1) else None
    return f"{schedule}, ResNet-{depth}, downsample {8 // finer}", stages, printed


def check_drawable(stages: dict[str, Rates]) -> None:
    """Refuse rates whose coverage would not fit in memory."""
    side = hdc.receptive_field(sum(stages.values(), ()))
    if side > WIDEST:
        raise ConfigError(f"a receptive field of {side} feature pixels; expected at most {WIDEST}")


def rising_groups(rates: Rates) -> list[Rates]:
    """Split a sawtooth where the rate falls: section 3.2's rising edges of the wave."""
    groups: list[list[int]] = [[rates[0]]]
    for before, rate in zip(rates, rates[1:]):
        if rate < before:
            groups.append([])
        groups[-1].append(rate)
    return [tuple(group) for group in groups]


def comparison(depth: int) -> Table:
    """A table of the named schedules, each over all of res4 and res5."""
    table = Table(
        "schedule", "res4; res5", "RF", "increase", "Table 2", "sampled",
        title=f"ResNet-{depth}, downsample 8, feature pixels",
    )  # fmt: skip
    for name in hdc.SCHEDULES:
        res4, res5 = hdc.schedule(name, convolutions(depth))
        printed = hdc.PRINTED_INCREASE.get(name) if depth == 101 else None
        table.add_row(
            name,
            f"{shorten(res4)}; {shorten(res5)}",
            str(hdc.receptive_field(res4 + res5)),
            str(hdc.table2_increase(res4, res5)),
            str(printed or "-"),
            f"{hdc.sampled_share(res4 + res5):.1%}",
        )
    return table


def groups_table(stages: dict[str, Rates]) -> Table:
    """A table of equation (2) for every distinct rising group, with M_2 <= K or not."""
    table = Table("stage", "group", "times", "M_1 ... M_n", "M_2 <= 3", "sampled")
    for stage, rates in stages.items():
        for group, times in Counter(rising_groups(rates)).items():
            table.add_row(
                stage,
                shorten(group),
                str(times),
                shorten(tuple(hdc.max_distance(group))),
                "yes" if hdc.satisfies_hdc(group) else "no",
                f"{hdc.sampled_share(group):.1%}",
            )
    return table


def stacks_table(stages: dict[str, Rates]) -> Table:
    """A table of equation (2) and the exact coverage, per stage and for all stages together."""
    table = Table(
        "stack", "M_1", "M_2", "M_2 <= 3", "receptive field", "sampled",
        caption="M_2 <= 3 promises 100% where the first rate is 1",
    )  # fmt: skip
    stacks = dict(stages)
    if len(stages) > 1:
        stacks[" + ".join(stages)] = sum(stages.values(), ())
    for name, rates in stacks.items():
        first, *above = hdc.max_distance(rates)
        side = hdc.receptive_field(rates)
        table.add_row(
            name,
            str(first),
            str(above[0]) if above else "-",
            "yes" if hdc.satisfies_hdc(rates) else "no",
            f"{side} x {side}",
            f"{hdc.sampled_share(rates):.1%}",
        )
    return table


def increase_line(stages: dict[str, Rates], printed: int | None) -> str:
    """Table 2's "RF increased" from the rates, and as printed where the paper has it."""
    increase = hdc.receptive_field(sum(stages.values(), ())) - 1
    line = f"receptive field increase: {increase} (2 x the sum of the rates)"
    if printed is None:
        return line
    agreement = "agrees" if printed == increase else "differs from its own rates"
    return f"{line}; Table 2 prints {printed}, which {agreement}"


def shorten(values: Rates) -> str:
    """Write numbers with their repeated start folded: ``(1 2 5 9)x5 1 2 5``, ``2 x23``."""
    for period in range(1, len(values) // 2 + 1):
        times = len(values) // period
        if values[: period * times] == values[:period] * times:
            group = " ".join(map(str, values[:period]))
            rest = "".join(f" {value}" for value in values[period * times :])
            return (f"({group})" if period > 1 else f"{group} ") + f"x{times}{rest}"
    return " ".join(map(str, values))


# --- the picture ---


def picture(stages: dict[str, Rates]) -> Image.Image:
    """A row per distinct group, layer after layer as in Figure 2, and one row for the stacks."""
    rows = []
    for stage, rates in stages.items():
        groups = dict.fromkeys(rising_groups(rates))
        begun = {group[:n] for group in groups for n in range(len(group))}
        for group in (g for g in groups if g not in begun):  # an unfinished group shows nothing new
            layers = [group[:n] for n in range(1, min(len(group), PANELS) + 1)]
            rows.append([(f"{stage}: r = {shorten(part)}", part) for part in layers])
    if len(stages) > 1:
        whole = [(f"all of {stage}", rates) for stage, rates in stages.items()]
        rows.append([*whole, ("all together", sum(stages.values(), ()))])
    size = (max(map(len, rows)) * (PANEL + 20) + 20, len(rows) * (PANEL + 40) + 20)
    image = Image.new("RGB", size, WHITE)
    draw = ImageDraw.Draw(image)
    for y, row in enumerate(rows):
        for x, (title, rates) in enumerate(row):
            left, top = 20 + x * (PANEL + 20), 30 + y * (PANEL + 40)
            side = hdc.receptive_field(rates)
            draw.text((left, top - 14), f"{title}  ({side} x {side})", fill=(0, 0, 0))
            image.paste(Image.fromarray(panel(hdc.coverage(rates))), (left, top))
    return image


def panel(covered: np.ndarray) -> np.ndarray:
    """``PANEL`` x ``PANEL`` x 3 uint8: contributing pixels blue, the centre red (Figure 2)."""
    side = len(covered)
    colours = np.where(covered[..., None], np.uint8(BLUE), np.uint8(WHITE))
    colours[side // 2, side // 2] = RED
    cell = PANEL // side
    if cell < 4:  # too small for grid lines
        smooth = Image.Resampling.NEAREST if side <= PANEL else Image.Resampling.BOX
        return np.array(Image.fromarray(colours).resize((PANEL, PANEL), smooth))
    grown = np.repeat(np.repeat(colours, cell, axis=0), cell, axis=1)
    grown[::cell], grown[:, ::cell] = GRID, GRID
    framed = np.full((PANEL, PANEL, 3), WHITE, np.uint8)
    margin = (PANEL - cell * side) // 2
    framed[margin : margin + cell * side, margin : margin + cell * side] = grown
    return framed


if __name__ == "__main__":
    sys.exit(main())
