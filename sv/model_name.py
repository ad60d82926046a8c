"""The grammar of model names: ``resnet{depth}_d[_{blocks}]`` and ``resnet{depth}[..]_w{factor}``.

The name is the shape of an embedding network: stage table and width. The recipe is its scale: a
width multiplies ``base_channels`` of conf/train.toml. There is one spelling for each network, so
``format_model_name(parse_model_name(name)) == name``. Names of other architectures are lines in
`ARCHITECTURES`.
"""

import difflib
import math
import re
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from sv.config import build_config
from sv.errors import UsageError
from sv.files import read_toml

# Blocks of each stage, and convolutions in a block: docs/design.md section 5, from the study.
STAGE_TABLE: dict[int, tuple[tuple[int, int, int, int], int]] = {
    18: ((2, 2, 2, 2), 2),
    34: ((3, 4, 6, 3), 2),
    50: ((3, 4, 6, 3), 3),
    101: ((3, 4, 23, 3), 3),
    152: ((3, 8, 36, 3), 3),
    200: ((3, 24, 36, 3), 3),
    419: ((4, 44, 87, 4), 3),
}
BASE_CHANNELS = (128, 128, 256, 256)  # the study, section 5.1
LEAST_CHANNELS = 2  # half of them are the attention's bottleneck
MAX_DECIMALS = 8  # of a width

RESNET = "sv.nnet.xvector"
# Names, as a pattern that fits one spelling of each network -> the module whose
# `build_network(name, input_dim, embedding_dim, network)` builds it (docs/adding-a-model.md).
# The value is a module's name, so that checking a model name does not import torch.
ARCHITECTURES: dict[str, str] = {
    r"resnet.*": RESNET,  # the grammar below decides which of these exist
}

# No network has longer numbers; int and Decimal would fail on endless ones with a traceback.
_NAME = re.compile(
    r"resnet(?P<depth>\d{1,4})"
    r"(?P<d>_d(?:_(?P<blocks>\d{4}|\d{1,4}(?:-\d{1,4}){3}))?)?"
    r"(?:_w(?P<width>\d{1,4}(?:\.\d{1,8})?))?",
    re.ASCII,
)


@dataclass(frozen=True)
class NetworkConfig:
    """The [network] table of conf/train.toml: what is not in a network's name.

    Attributes:
        pooling: See sv/nnet/pooling.py.
        base_channels: Feature maps of a ResNet's four stages at width 1.
    """

    pooling: Literal["asp", "mean_std"] = "asp"
    base_channels: tuple[int, ...] = BASE_CHANNELS

    def __post_init__(self) -> None:
        """Check the ranges."""
        if len(self.base_channels) != len(BASE_CHANNELS) or min(self.base_channels) < 1:
            raise ValueError("base_channels must be the feature maps of four stages, 1 or more")


STUDY_NETWORK = NetworkConfig()


@dataclass(frozen=True)
class ModelName:
    """A ResNet's name, parsed: ``depth`` selects the family, the rest the network."""

    depth: int
    blocks: tuple[int, int, int, int]
    width: Decimal

    @property
    def convs_per_block(self) -> int:
        """Convolutions in a block: 2 for the 18 and 34 families, 3 for the deeper ones."""
        return STAGE_TABLE[self.depth][1]

    @property
    def layers(self) -> int:
        """True number of layers: stem, block convolutions, embedding."""
        return 2 + self.convs_per_block * sum(self.blocks)

    def count_channels(self, network: NetworkConfig = STUDY_NETWORK) -> tuple[int, ...]:
        """Return the feature maps of each stage: the base times the width.

        Raises:
            UsageError: They are no whole numbers, or too few; the message has the widths that do.
        """
        base = network.base_channels
        channels = [maps * self.width for maps in base]
        if any(maps % 1 or maps < LEAST_CHANNELS for maps in channels):
            step, least = _find_widths(base)
            raise UsageError(
                f"unknown model '{format_model_name(self)}': width {self.width} gives "
                f"{', '.join(f'{maps.normalize():f}' for maps in channels)} channels of "
                f"{', '.join(map(str, base))}, not whole numbers of at least {LEAST_CHANNELS}; "
                f"widths that do are {least:f} and more in steps of {step:f}"
            )
        return tuple(map(int, channels))


def _find_widths(base: tuple[int, ...]) -> tuple[Decimal, Decimal]:
    """Return the step between widths that give whole channels, and the least width that does."""
    divisor = math.gcd(*base)
    decimal = max(
        n for n in range(1, divisor + 1) if divisor % n == 0 and 10**MAX_DECIMALS % n == 0
    )
    step = 1 / Decimal(decimal)
    least = step * math.ceil(LEAST_CHANNELS * decimal / min(base))
    return step.normalize(), least.normalize()


def check_model_name(name: str, network: NetworkConfig = STUDY_NETWORK) -> str:
    """Check that a name stands for a network of some architecture.

    Args:
        name: Of a model.
        network: What is not in the name.

    Returns:
        The module that builds the network.

    Raises:
        UsageError: No architecture has such names; see also `parse_model_name`.
    """
    for pattern, module in ARCHITECTURES.items():
        if re.fullmatch(pattern, name, re.ASCII):
            if module == RESNET:
                parse_model_name(name).count_channels(network)
            return module
    others = [pattern for pattern, module in ARCHITECTURES.items() if module != RESNET]
    known = f", or a name that fits {' or '.join(others)}" if others else ""
    raise UsageError(f"unknown model '{name}'{_suggest(name)}{known}")


def describe_model_name(name: str, network: NetworkConfig = STUDY_NETWORK) -> dict[str, Any]:
    """Return what these two determine: for a ResNet its blocks, channels and layers.

    Raises:
        UsageError: See `check_model_name`.
    """
    if check_model_name(name, network) != RESNET:
        return {}
    model = parse_model_name(name)
    channels = model.count_channels(network)
    return {"blocks": model.blocks, "channels": channels, "layers": model.layers}


def read_network_config(path: Path) -> NetworkConfig:
    """Read the [network] table of conf/train.toml alone: model names are checked before stage 0.

    Raises:
        UsageError: See `sv.config.read_config`.
    """
    table = read_toml(path).get("network", {})
    return build_config({"network": table}, _OnlyNetwork, where=str(path)).network


@dataclass(frozen=True)
class _OnlyNetwork:
    network: NetworkConfig


def parse_model_name(name: str) -> ModelName:
    """Parse the name of a ResNet.

    Raises:
        UsageError: The name does not follow the grammar, or is another spelling of a valid name;
            the message gives the valid spelling.
    """
    parsed = _parse_any_spelling(name)
    if parsed is None:
        raise UsageError(f"unknown model '{name}'{_suggest(name)}")
    if format_model_name(parsed) != name:
        raise UsageError(f"unknown model '{name}' (the name is '{format_model_name(parsed)}')")
    return parsed


def _parse_any_spelling(name: str) -> ModelName | None:
    """Parse a name in any spelling that the grammar admits; None if it does not follow it."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    depth = int(match["depth"])
    if depth not in STAGE_TABLE:
        known = ", ".join(str(d) for d in STAGE_TABLE)
        raise UsageError(
            f"unknown model '{name}': no stage table for depth {depth} (known: {known})"
        )
    blocks = STAGE_TABLE[depth][0]
    if match["blocks"]:
        parts = match["blocks"].split("-") if "-" in match["blocks"] else match["blocks"]
        blocks = tuple(int(part) for part in parts)  # type: ignore[assignment]
        if min(blocks) < 1:
            raise UsageError(f"unknown model '{name}': every stage needs at least one block")
    width = Decimal(match["width"] or "1")
    if not width:
        raise UsageError(f"unknown model '{name}': a width of 0 leaves no channels")
    return ModelName(depth, blocks, width)


def format_model_name(model: ModelName) -> str:
    """Return the one name of a network: no default blocks, no ``_w1``, the shortest decimal."""
    name = f"resnet{model.depth}"
    if model.blocks != STAGE_TABLE[model.depth][0]:
        short = max(model.blocks) <= 9
        name += "_d_" + ("" if short else "-").join(str(n) for n in model.blocks)
    elif model.width == 1:
        name += "_d"
    return name if model.width == 1 else f"{name}_w{model.width.normalize():f}"


def format_study_name(name: str) -> str:
    """Return a system's name as the study prints it: ResNet-50-D[2,8,2,2], ResNet-50-W0.25.

    One that is no ResNet's stays as it is.
    """
    try:
        model = parse_model_name(name)
    except UsageError:
        return name
    text = f"ResNet-{model.depth}"
    if model.blocks != STAGE_TABLE[model.depth][0]:
        text += f"-D[{','.join(map(str, model.blocks))}]"
    elif model.width == 1:
        text += "-D"
    return text if model.width == 1 else f"{text}-W{model.width.normalize():f}"


def _suggest(name: str) -> str:
    """Suggest a spelling: the study writes ResNet-50-D[2,8,2,2] and ResNet-50-W0.5."""
    folded = name.lower().replace(" ", "")
    match = re.fullmatch(
        r"resnet[-_]?(\d{1,4})[-_]?(d?)[-_]?\[?([\d,-]*?)\]?[-_]?(?:w[-_]?([\d.]+))?",
        folded,
    )
    if match and int(match[1]) in STAGE_TABLE:
        text = match[3] or ""
        blocks = re.split("[,-]", text) if re.search("[,-]", text) else list(text)
        guess = f"resnet{match[1]}"
        guess += f"_d_{'-'.join(blocks)}" if len(blocks) == 4 else ""
        guess += f"_w{match[4]}" if match[4] else ""
        if parsed := _parse_any_spelling(guess):
            return f" (did you mean '{format_model_name(parsed)}'?)"
    known = [f"resnet{depth}_d" for depth in STAGE_TABLE]
    if near := difflib.get_close_matches(folded, known, n=1):
        return f" (did you mean '{near[0]}'?)"
    return " (a name is resnet50_d, resnet50_d_2822, resnet50_w0.5 or resnet50_d_2882_w0.5)"
