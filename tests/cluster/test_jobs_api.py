"""Ray's HTTP port runs anything for whoever may submit a job: only for those who know the token."""

import json

import pytest

from tests.head import started

JOBS = "/api/jobs/"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_job_without_the_token_is_refused() -> None:
    job = json.dumps({"entrypoint": "true"}).encode()
    with started() as head:
        for body in (None, job):
            assert head.status(JOBS, None, body) == 401
            assert head.status(JOBS, "0" * 32, body) in (401, 403)
        assert head.status(JOBS, head.token) == 200
