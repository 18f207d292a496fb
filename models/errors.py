"""The error classes for everything that a user's input or environment can cause."""


class PacelineError(Exception):
    """Base of all errors that Paceline raises on purpose."""


class InvalidOption(PacelineError, ValueError):
    """An option's value is not accepted. The message names field, value and accepted values."""

    def __init__(self, field: str, value: object, accepted: str) -> None:
        super().__init__(f"{field}={value!r} is not accepted: {accepted}")
        self.field, self._told = field, (field, value, accepted)

    def at(self, place: str) -> "InvalidOption":
        """The same of a field in a place, such as `models[1]`."""
        field, value, accepted = self._told
        return InvalidOption(f"{place}.{field}", value, accepted)

    def named(self, field: str) -> "InvalidOption":
        """The same of a field with another name."""
        return InvalidOption(field, *self._told[1:])

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), self._told)  # so that it reaches the driver from an actor


class UnsupportedCheckpoint(PacelineError, ValueError):
    """A checkpoint cannot be loaded, or does not match another model in use."""


class InvalidRequest(PacelineError, ValueError):
    """One request cannot run. Other requests are not affected."""


class NoRoom(InvalidRequest):
    """A request is too long for the memory that a process has, and for nothing else."""
