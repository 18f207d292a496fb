"""Draft actors that do not fit the target are refused before anything runs."""

import pytest

from actors.drafts.draft import DraftActor
from actors.pool.team import check_fit
from models.errors import UnsupportedCheckpoint

TARGET = {"vocabulary": 64, "max_length": 96}


def test_a_draft_that_fits(config, checkpoints):
    told = DraftActor().start(config(drafter=checkpoints["draft"], draft_tokens="auto"), 2)
    check_fit(TARGET, told)
    assert told["max_width"] == 8


def test_lookup_fits_everything(config):
    told = DraftActor().start(config(drafter="lookup"), 2)
    check_fit(TARGET, told)
    assert told["max_width"] == 1


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"vocabulary": 72, "max_length": 96}, "64 tokens, the target of 72"),
        ({"vocabulary": 64, "max_length": 97}, "context of 96 tokens; 97 are needed"),
    ],
)
def test_a_draft_that_does_not_fit(config, checkpoints, target, message):
    told = DraftActor().start(config(drafter=checkpoints["draft"]), 2)
    with pytest.raises(UnsupportedCheckpoint, match=message):
        check_fit(target, told)


def test_a_draft_whose_context_is_too_short(config, checkpoints):
    with pytest.raises(UnsupportedCheckpoint, match="256 tokens; 300 are needed"):
        DraftActor().start(config(drafter=checkpoints["draft"], max_length=300), 2)
