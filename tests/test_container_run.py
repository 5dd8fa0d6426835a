"""A lab from its command to its page, in a container.

It isn't in test_first_light, because the tests of an engine share a process.
"""

from tests.conftest import Clone
from tests.test_first_light import require_good_run, run

import pytest


@pytest.mark.engine
@pytest.mark.usefixtures("engine")
def test_a_lab_passes_in_a_container(clone: Clone) -> None:
    require_good_run(clone, "LLM06", run(clone, "LLM06", "docker"))
