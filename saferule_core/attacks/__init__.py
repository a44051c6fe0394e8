"""Poisoning attacks, for tests and benchmarks only: they exist so that repairs can be measured.

    from saferule_core import attacks
    poisoned = attacks.attack("trajectory", data, rate=0.1, seed=0)      # names: attacks.ATTACKS
    poisoned.data, poisoned.chosen, poisoned.trigger

One attack per file; docs/ATTACKS.md says what each may do and where it breaks an agent.
"""

from saferule_core.attacks import action_override, backdoor, blinding, observation_pgd, reward_shift, trajectory
from saferule_core.attacks.base import ATTACKS, Poisoned, Trigger, attack, check_attack

__all__ = [
    "ATTACKS",
    "Poisoned",
    "Trigger",
    "action_override",
    "attack",
    "backdoor",
    "blinding",
    "check_attack",
    "observation_pgd",
    "reward_shift",
    "trajectory",
]
