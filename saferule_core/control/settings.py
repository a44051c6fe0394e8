"""What an operator may set of the control loop, checked once.

    settings = ControlSettings(ood="hold", monitor_timeout_s=0.2)
    Controller(spec, policy, policy_id, settings)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from saferule_core.errors import SpecError

OOD_MODES = ("off", "warn", "hold")


@dataclass(frozen=True)
class ControlSettings:
    """Safety of the loop; the defaults are on.

    input_timeout_s: how long inputs may be unusable before the stop latches [s of the node's clock]; the safe command
        is sent from the first tick on. monitor_timeout_s: how long the cost monitor may be silent once it was heard
        [s wall], 0 to not watch it. require_monitor: count the silence from activation on, too.
    ood: "off", "warn" or "hold", for observations beyond the training data's ranges. ood_margin: how far beyond, as a
        share of each range.

    Raises:
        SpecError: a value makes no sense.
    """

    input_timeout_s: float = 0.5
    monitor_timeout_s: float = 0.5
    require_monitor: bool = False
    ood: str = "warn"
    ood_margin: float = 0.1

    def __post_init__(self) -> None:
        if self.ood not in OOD_MODES:
            raise SpecError(f"ood: expected one of {', '.join(OOD_MODES)}, found {self.ood!r}")
        for name in ("input_timeout_s", "monitor_timeout_s", "ood_margin"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0.0):
                raise SpecError(f"{name}: expected a finite number >= 0, found {value}")
        if self.require_monitor and not self.monitor_timeout_s:
            raise SpecError("require_monitor: expected a monitor_timeout above 0 s with it, found 0")
