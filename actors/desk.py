"""Where requests enter and leave a token loop by their tickets, in whatever order calls arrive.

Ray may deliver a target actor's calls in another order than they were made: a `cancel` before the
`submit` that it is meant for, or a new request before the `cancel` of an older one with the same
id. Tickets tell them apart, and of two requests with one id the higher ticket is the newer.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace

from actors.messages import Ended, Streamed, Submission
from models.errors import NoRoom
from models.loop.token_loop import TokenLoop
from models.requests.request import Result

MAX_EARLY = 10_000  # cancels that are remembered because their submission has not arrived


class Desk:
    """Used by the token loop's thread alone."""

    def __init__(self, loop: TokenLoop, name: str = "target") -> None:
        """`name`: of the actor, for traces."""
        self._loop, self._name = loop, name
        self._tickets: dict[str, int] = {}  # of the requests in the loop, by id
        self._early: OrderedDict[int, None] = OrderedDict()  # cancelled, not seen

    def submit(self, submissions: Iterable[Submission]) -> list[Ended]:
        """Hand requests to the loop; returns the results of those that it refuses."""
        refused = []
        for submission in submissions:
            if not self._is_wanted(submission):
                continue
            try:
                self._loop.submit(submission.request)
            except Exception as error:  # InvalidRequest, or what a request without sense leads to
                result = refusal(submission.request.id, error)
                refused.append(Ended(ticket=submission.ticket, result=result))
            else:
                self._tickets[submission.request.id] = submission.ticket
        return refused

    def cancel(self, tickets: Iterable[int]) -> None:
        """Drop requests from the loop, or when they arrive."""
        running = {ticket: request_id for request_id, ticket in self._tickets.items()}
        for ticket in tickets:
            if ticket in running:
                self._drop(running[ticket])
            else:  # it has not arrived, or has ended
                self._early[ticket] = None
        while len(self._early) > MAX_EARLY:
            self._early.popitem(last=False)

    def streamed(self) -> list[Streamed]:
        """The loop's updates with their tickets; before `ended`, which forgets tickets."""
        return [
            Streamed(ticket=self._tickets[update.id], update=update)
            for update in self._loop.take_updates()
        ]

    def ended(self, results: Iterable[Result]) -> list[Ended]:
        """Results of the loop with their tickets."""
        return [Ended(ticket=self._tickets.pop(r.id), result=self._placed(r)) for r in results]

    def _placed(self, result: Result) -> Result:
        """A result whose trace says which actor this is."""
        if not result.spans:
            return result
        spans = tuple(replace(span, where=span.where or self._name) for span in result.spans)
        return replace(result, spans=spans)

    def _is_wanted(self, submission: Submission) -> bool:
        if submission.ticket in self._early:
            del self._early[submission.ticket]
            return False
        other = self._tickets.get(submission.request.id)
        if other is not None and other > submission.ticket:
            return False  # a newer request has its id, so it was cancelled
        if other is not None:
            self._drop(submission.request.id)
        return True

    def _drop(self, request_id: str) -> None:
        del self._tickets[request_id]
        self._loop.cancel(request_id)


def refusal(request_id: str, error: Exception) -> Result:
    """The result of a request that cannot run; with more memory than is here, it may."""
    return Result(
        id=request_id,
        tokens=(),
        finish_reason="error",
        error=str(error),
        invalid=True,
        retryable=isinstance(error, NoRoom),
    )
