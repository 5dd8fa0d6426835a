"""Error messages of Docker, pip and others, and the cards for them."""

from launcher.engine.known_errors import explain, explain_exit

import pytest

SOCKET = "/var/run/docker.sock"
MESSAGES = [
    (
        "Error while fetching server API version: ('Connection aborted.', "
        "PermissionError(13, 'Permission denied'))",
        "may not use the container engine",
    ),
    (
        "permission denied while trying to connect to the Docker daemon socket at "
        f"unix://{SOCKET}: dial unix {SOCKET}: connect: permission denied",
        "may not use the container engine",
    ),
    (
        "Error while fetching server API version: ('Connection aborted.', "
        "FileNotFoundError(2, 'No such file or directory'))",
        "No container engine is running",
    ),
    (
        "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. "
        "Is the docker daemon running?",
        "No container engine is running",
    ),
    ("docker: 'compose' is not a docker command.\nSee 'docker --help'", "compose plugin"),
    ("unknown shorthand flag: 'f' in -f\nSee 'docker --help'.", "compose plugin"),
    ("unknown flag: --file\nSee 'docker --help'.", "compose plugin"),
    ("docker: 'buildx' is not a docker command.", "buildx plugin"),
    ("compose build requires buildx 0.17.0 or later", "buildx plugin"),
    (
        "ERROR: BuildKit is enabled but the buildx component is missing or broken.",
        "buildx plugin",
    ),
    (
        "failed to solve: registry.invalid/none:1: failed to resolve source metadata for "
        "registry.invalid/none:1: failed to do request: Head "
        '"https://registry.invalid/v2/none/manifests/1": dial tcp: lookup registry.invalid on '
        "192.0.2.53:53: no such host",
        "download for the build failed",
    ),
    (
        "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError("
        "Failed to establish a new connection: [Errno 101] Network is unreachable')\n"
        "ERROR: Could not find a version that satisfies the requirement torch==2.13.0+cpu",
        "download for the build failed",
    ),
    (
        "No torch==2.13.0+cpu for Python 3.12.3 in the folder of wheels, nor from https://a.b.",
        "download for the build failed",
    ),
    (
        "SSLError(SSLCertVerificationError(1, 'certificate verify failed'))",
        "download for the build failed",
    ),
    ("manifest unknown: manifest unknown", "base image isn't available"),
    (
        "pull access denied for nothing/here, repository does not exist or may require "
        "'docker login'",
        "base image isn't available",
    ),
    ("write /var/lib/docker/tmp/x: no space left on device", "disk is full"),
    ("OSError: [Errno 28] No space left on device", "disk is full"),
    (
        "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
        "differs from the one in the lock",
    ),
    (
        "check_torch: the file isn't the one that was tested: don't use it",
        "differs from the one that was tested",
    ),
    (
        "The virtual environment was not created successfully because ensurepip is not available.",
        "can't make virtual environments",
    ),
    (
        'invalid mount config for type "bind": bind source path does not exist: /gone',
        "folder that the container needs",
    ),
    (
        'Conflict. The container name "/x" is already in use by container "0123".',
        "A container of that name",
    ),
]


@pytest.mark.parametrize(("text", "what"), MESSAGES, ids=[what for _, what in MESSAGES])
def test_a_known_error_has_a_card(text: str, what: str) -> None:
    card = explain(f"#7 [stage 2/3] RUN something\n{text}\n", "Something else.")
    assert what in card.what
    assert card.why and card.fix
    assert card.code == 3


CDI = "Error: setting up CDI devices: unresolvable CDI devices {}=0"


@pytest.mark.parametrize(
    ("text", "named", "not_named"),
    [
        ("docker: 'compose' is not a docker command.", "--runtime venv", "LABS"),
        ("lookup registry.invalid: no such host", "LABS_BASE_IMAGE=… invoke build", "amd"),
        (CDI.format("nvidia.com/gpu"), "sudo nvidia-ctk cdi generate", "LABS_DEVICES"),
        (CDI.format("nvidia.com/gpu"), "--runtime venv", "amd-ctk"),
        (CDI.format("amd.com/gpu"), "sudo amd-ctk cdi generate; or LABS_DEVICES=nodes", "nvidia"),
    ],
)
def test_a_fix_names_what_helps_and_nothing_else(text: str, named: str, not_named: str) -> None:
    fix = explain(text, "").fix
    assert named in fix and not_named not in fix


def test_the_card_that_names_the_engines_group_says_what_it_may_do() -> None:
    card = explain(f"permission denied ... unix://{SOCKET}: docker.sock", "")
    assert "as powerful as root" in card.why
    assert card.fix.index("rootless") < card.fix.index("usermod -aG docker")


def test_an_unknown_error_is_quoted() -> None:
    card = explain("first\n  the last line  \n\n", "It didn't work.")
    assert (card.what, card.why) == ("It didn't work.", "the last line")
    assert explain("", "It didn't work.").why == "It printed nothing."


def test_exit_codes_of_the_lab_have_no_card() -> None:
    assert [explain_exit(code, "LLM06", False) for code in (0, 1, 2, 3, 77)] == [None] * 5


def test_a_kill_differs_from_too_little_memory() -> None:
    killed, starved = (explain_exit(137, "LLM06", out_of_memory) for out_of_memory in (False, True))
    assert killed is not None and starved is not None
    assert killed.code == starved.code == 137
    assert killed.why != starved.why
    assert "memory" in starved.why
    assert "LABS_MEMORY" in starved.fix
