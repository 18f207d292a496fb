from collections.abc import Iterator
from threading import current_thread

import pytest

from pipelines.inputs.prefetch import Prefetch


def endless(ends: list[str]) -> Iterator[int]:
    try:
        number = 0
        while True:
            yield (number := number + 1)
    finally:
        ends.append(current_thread().name)


def test_leaving_ends_the_iterator_in_its_own_thread() -> None:
    """What a generator calls at its end (Ray, say) may be gone when it is collected."""
    ends: list[str] = []
    with Prefetch(endless(ends)) as numbers:
        assert numbers.get(timeout_s=10) == 1
    assert ends == ["prefetch"]


def test_an_iterators_error_is_raised_where_the_item_is_asked_for() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    with Prefetch(broken()) as numbers:
        assert numbers.get(timeout_s=10) == 1
        with pytest.raises(ValueError, match="no more"):
            numbers.get(timeout_s=10)
    assert numbers.ended
