"""The settings of the meter: egs/<x>/conf/energy.toml."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class EnergyConfig:
    """What the meter cannot find out for itself. Every assumption has its source beside it.

    Attributes:
        country: ISO 3166 code of three letters for the grid's carbon factor (OWID_WRL: the
            world); None: co2_g is null.
        g_per_kwh: A fixed carbon factor instead of the table's, with its source.
        pue: Power usage effectiveness of the site: energy of the site / energy of the machines.
        period_s: Time between two samples. A 32-bit RAPL counter wraps after 4 to 20 minutes.
        cpu_power_w_per_core: Power of one busy core, for the estimate from CPU time.
    """

    country: str | None = None
    g_per_kwh: float | None = None
    g_per_kwh_source: str | None = None
    pue: float = 1.0
    pue_source: str = "none: the machines alone, no cooling"
    period_s: float = 1.0
    cpu_power_w_per_core: float = 6.25
    cpu_power_source: str = (
        "assumption: TDP / cores of an Intel Xeon Platinum 8480+ (350 W / 56), all cores busy"
    )

    def __post_init__(self) -> None:
        """Refuse values that would give a figure without a meaning."""
        if not 1.0 <= self.pue < math.inf:
            raise ValueError(f"pue must be at least 1, not {self.pue}")
        if not 0.05 <= self.period_s <= 30.0:
            raise ValueError(f"period_s must be 0.05 to 30 seconds, not {self.period_s}")
        if not 0.0 < self.cpu_power_w_per_core < math.inf:
            raise ValueError(
                f"cpu_power_w_per_core must be over 0, not {self.cpu_power_w_per_core}"
            )
        if self.g_per_kwh is not None and not 0.0 <= self.g_per_kwh < math.inf:
            raise ValueError(f"g_per_kwh must be at least 0, not {self.g_per_kwh}")
        if self.g_per_kwh is not None and not self.g_per_kwh_source:
            raise ValueError("g_per_kwh needs g_per_kwh_source: where the figure is from")
