"""Errors of saferule: one base class, one subclass per module family.

A message names the file, the field, what was expected and what was found, and reads well on its own:
callers print ``str(error)`` to people, or put it into a ROS result.
"""


class SaferuleError(Exception):
    """Base of every error that saferule raises on purpose."""


class SpecError(SaferuleError):
    """A robot description is malformed, or does not fit what it is used with."""


class InputError(SaferuleError):
    """A sensor value cannot be used, for example because it is not finite."""


class StaleInputError(InputError):
    """A sensor that the policy needs is missing or older than its `max_age`."""


class DataError(SaferuleError):
    """Bags or transitions are missing, damaged or do not fit the robot description."""


class DiskError(DataError):
    """A file cannot be written, for example because the disk is full; what it is about may be sound."""


class SimulationError(SaferuleError):
    """A simulated robot could not be made, or a simulation worker died."""


class UnlearningError(SaferuleError):
    """An unlearning request makes no sense, or a method cannot work on it."""


class DetectionError(SaferuleError):
    """A detector lacks what it needs to judge logged episodes."""


class StoreError(SaferuleError):
    """A policy bundle or the policy store is missing, damaged or does not fit."""


class Cancelled(SaferuleError):
    """The caller asked for a stop; nothing was changed."""
