"""Another drafter for target actors that run: offered to all, then kept by all or by none."""

from dataclasses import replace
from typing import Any

from ray import ObjectRef

from actors.pool.members import Pool
from models.engine_config import EngineConfig
from models.errors import InvalidOption


class DrafterChange:
    """Which configuration each target actor drafts by, and which one it should."""

    def __init__(self, targets: Pool, config: EngineConfig, *, draft_actors: bool) -> None:
        self._targets, self._config, self._draft_actors = targets, config, draft_actors
        self._offered: EngineConfig | None = None

    def offer(self, drafter: str) -> "list[ObjectRef[Any]]":
        """Let every target actor change; the calls raise where one cannot. `settle` comes next.

        Raises InvalidOption where drafts decide which tokens come, where draft actors draft, and
        while another change is under way.
        """
        if self._config.rule != "match":
            told = "match: with other rules the tokens depend on the drafter"
            raise InvalidOption("verify", self._config.rule, told)
        if self._draft_actors:
            told = "a drafter beside each target: draft actors keep the one that they began with"
            raise InvalidOption("drafter", drafter, told)
        if self._offered is not None:
            raise InvalidOption("drafter", drafter, "one change after the other")
        self._offered = replace(self._config, drafter=drafter)
        return [self._change(member, self._offered) for member in self._targets.ready]

    def settle(self, *, keep: bool) -> None:
        """Keep what was offered, also for actors to come; or let all go back."""
        assert self._offered is not None, "nothing was offered"
        if keep:
            self._config = self._offered
            self._targets.begin_with(self._config)
        self._offered = None

    def align(self) -> None:
        """Let actors change that began with another drafter, or have one that was not kept."""
        if self._offered is not None:
            return
        for member in self._targets.ready:
            if member.arguments[0].drafter != self._config.drafter:
                self._change(member, self._config)

    def _change(self, member: Any, config: EngineConfig) -> "ObjectRef[Any]":
        member.arguments = (config, *member.arguments[1:])
        changed: ObjectRef[Any] = member.handle.change_drafter.remote(config)
        return changed
