"""What can go wrong between us and the machines: storage and the Ray cluster."""


class ClusterError(Exception):
    """Base of all errors of this package."""


class StorageError(ClusterError, OSError):
    """A file cannot be read, listed or written; the message names it and the reason."""

    def __init__(self, action: str, url: str, reason: object) -> None:
        super().__init__(f"cannot {action} {url}: {reason}")
        self.url = url

    def __reduce__(self) -> tuple[object, ...]:
        return (_restore, (str(self), self.url))


class LeaseLost(ClusterError):
    """Another run holds the lease of this one by now: nothing more may be written."""


class CannotConnect(ClusterError):
    """No Ray cluster answers at the address, or none could be started here."""


def _restore(message: str, url: str) -> StorageError:
    """The same error in another process."""
    error = StorageError.__new__(StorageError)
    OSError.__init__(error, message)
    error.url = url
    return error
