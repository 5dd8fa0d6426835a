"""Names that the launcher and the labs both write down, as neither of them imports the other."""

from pathlib import Path

from common import classroom
from labs.kit import atomic_folder
from launcher.hub import folder as hub_folder
from launcher.run import checkpoints


def test_the_launcher_reads_the_step_of_the_labs_checkpoints():
    name = atomic_folder.path_of(Path("it"), 24).name
    assert name == f"{checkpoints.STEP}00000024"


def test_the_launcher_knows_the_file_of_the_teachers_message():
    assert hub_folder.MESSAGE == classroom.MESSAGE
