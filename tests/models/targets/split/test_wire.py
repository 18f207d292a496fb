"""Messages between ranks arrive as they were sent, and hold nothing else."""

from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest

from models.batch import Batch, chains
from models.targets.split.messages import KINDS, CopyBlock, CopyEntries, NewCache, Pass, Stop
from models.targets.split.wire import decode, encode

BATCH = replace(chains(np.array([0, 2]), [[1, 2], [3]]), visible=(np.tri(2, dtype=np.bool_), None))
MESSAGES = [
    NewCache(key=1, rows=2, capacity=64, entries=None),
    Stop(),
    Pass(
        key=3,
        changes=(CopyBlock(1, 2), CopyEntries(np.array([5]), np.array([6]))),
        batch=BATCH,
        lengths=np.array([4, 0]),
        rooms=np.array([64, 64]),
        tables=np.array([[0], [1]]),
        depths=np.zeros((2, 0), dtype=np.int64),
        dropped=(7,),
    ),
]


def same(found, sent):
    if is_dataclass(sent):
        names = [each.name for each in fields(sent)]
        pairs = [(getattr(found, name), getattr(sent, name)) for name in names]
        return type(found) is type(sent) and all(same(*pair) for pair in pairs)
    if isinstance(sent, tuple):
        return len(found) == len(sent) and all(map(same, found, sent))
    if isinstance(sent, np.ndarray):
        return found.dtype == sent.dtype and np.array_equal(found, sent) and found.flags.writeable
    return found == sent


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_arrives_as_it_was_sent(message):
    assert same(decode(encode(message), KINDS), message)


def test_refuses_anything_else():
    with pytest.raises(TypeError, match="cannot be sent to other ranks"):
        encode(replace(BATCH, rows=[0, 1]))


def test_an_unknown_kind_is_no_message():
    with pytest.raises(KeyError):
        decode(encode(Stop()), {"Batch": Batch})
