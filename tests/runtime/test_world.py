import pytest

from wingspan.errors import InputError
from wingspan.runtime.ranks.world import world_from_environment


def test_no_launcher_no_world():
    assert world_from_environment({"HOME": "/root"}) is None


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"},
        {
            "OMPI_COMM_WORLD_RANK": "5",
            "OMPI_COMM_WORLD_SIZE": "8",
            "OMPI_COMM_WORLD_LOCAL_RANK": "1",
            "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
        },
        {"PMI_RANK": "5", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "4"},
        {
            "SLURM_PROCID": "5",
            "SLURM_STEP_NUM_TASKS": "8",
            "SLURM_LOCALID": "1",
            "SLURM_TASKS_PER_NODE": "4(x2)",
        },
    ],
)
def test_every_launcher_says_the_same(environment):
    world = world_from_environment(environment)
    assert world is not None
    assert (world.rank, world.size, world.local_rank, world.ranks_per_node, world.node) == (5, 8, 1, 4, 1)


def test_the_hint_wins_over_the_launcher():
    environment = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "5", "LOCAL_WORLD_SIZE": "8"}
    world = world_from_environment(environment, ranks_per_node=2)
    assert world is not None
    assert world.node == 2


@pytest.mark.parametrize(
    ("environment", "hint", "named"),
    [
        ({"RANK": "two", "WORLD_SIZE": "8"}, None, "RANK='two'"),
        ({"RANK": "9", "WORLD_SIZE": "8"}, None, "RANK=9"),
        ({"RANK": "0", "WORLD_SIZE": "8"}, 3, "--ranks-per-node 3"),
    ],
)
def test_contradictions_are_named(environment, hint, named):
    with pytest.raises(InputError, match=named):
        world_from_environment(environment, ranks_per_node=hint)
