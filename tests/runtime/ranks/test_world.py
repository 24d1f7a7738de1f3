import pytest

from wingspan.errors import InputError
from wingspan.runtime.ranks.world import launch_from_environment, named


def test_no_launcher_no_launch():
    assert launch_from_environment({"HOME": "/root"}) is None


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
        {
            "SLURM_PROCID": "5",
            "SLURM_STEP_NUM_TASKS": "8",
            "SLURM_LOCALID": "1",
            "SLURM_TASKS_PER_NODE": "4,3,1",
        },
    ],
)
def test_every_launcher_says_the_same(environment):
    launch = launch_from_environment(environment)
    assert launch is not None
    assert (launch.rank, launch.size, launch.local_rank, launch.local_size) == (5, 8, 1, 4)
    assert launch.on_several_hosts


def test_what_a_launcher_leaves_out_is_not_guessed():
    launch = launch_from_environment({"RANK": "5", "WORLD_SIZE": "8"})
    assert launch is not None
    assert (launch.local_rank, launch.local_size) == (None, None)
    assert not launch.on_several_hosts


def test_slurms_batch_script_is_no_rank():
    assert launch_from_environment({"SLURM_PROCID": "0", "SLURM_TASKS_PER_NODE": "2(x2)"}) is None


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"RANK": "two", "WORLD_SIZE": "8"}, "RANK='two' is not a whole number"),
        ({"RANK": "9", "WORLD_SIZE": "8"}, "RANK=9 is not below WORLD_SIZE=8"),
        ({"RANK": "-1", "WORLD_SIZE": "8"}, "RANK=-1 is not below WORLD_SIZE=8"),
        ({"RANK": "0"}, "RANK=0 without WORLD_SIZE"),
        ({"WORLD_SIZE": "8"}, "WORLD_SIZE=8 without RANK"),
        ({"OMPI_COMM_WORLD_RANK": "1"}, "OMPI_COMM_WORLD_RANK=1 without OMPI_COMM_WORLD_SIZE"),
        ({"PMI_RANK": "1"}, "PMI_RANK=1 without PMI_SIZE"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "RANK=0 is not below WORLD_SIZE=0"),
    ],
)
def test_incomplete_and_contradictory_launches_are_named(environment, text):
    with pytest.raises(InputError, match=text):
        launch_from_environment(environment)


@pytest.mark.parametrize(
    ("ranks", "text"),
    [
        ([1], "rank 1"),
        ([0, 1, 2, 5], "ranks 0-2, 5"),
        (list(range(0, 20, 2)), "ranks 0, 2, 4, 6, 8, 10, ..."),
    ],
)
def test_ranks_for_people(ranks, text):
    assert named(ranks) == text
