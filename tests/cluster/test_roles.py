"""Roles choose nodes by their label, where a cluster has labelled nodes."""

import pytest

from cluster.placement.roles import COMMANDS, GROUPS, HEAD, LABEL, ROLES, selector


@pytest.mark.parametrize("role", ROLES)
def test_a_labelled_cluster_is_used_by_its_labels(role):
    nodes = [{LABEL: HEAD}, {"ray.io/node-id": "1"}]
    assert selector(role, nodes) == {LABEL: ROLES[role].group}


def test_other_clusters_are_used_as_a_whole():
    assert selector("target", [{}, {"ray.io/node-group": "workers"}]) == {}


def test_nothing_runs_on_the_head():
    assert HEAD not in GROUPS


def test_commands_name_roles_that_exist():
    assert {role for roles in COMMANDS.values() for role in roles} <= set(ROLES)
