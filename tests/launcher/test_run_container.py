"""A lab in a real container: its limits, its files, its output and its exit code."""

import json
import os
import shlex
from contextlib import suppress
from pathlib import Path

import docker
from launcher.engine import container as run_container
from launcher.engine.client import Engine, connect
from launcher.engine.container_spec import Bind, ContainerSpec
from tests.conftest import BIN, SOMEBODY, Clone, as_user
from tests.kit.every_finding import NOTHING
from tests.launcher.probe import TRIED

import pytest

pytestmark = pytest.mark.engine

# A lab that prints what a hardened container allows.
PROBE = (
    TRIED
    + """
print(json.dumps({
    "uid": os.getuid(),
    "gid": os.getgid(),
    "groups": os.getgroups(),
    "effective": status["CapEff"].strip(),
    "permitted": status["CapPrm"].strip(),
    "bounding": status["CapBnd"].strip(),
    "no_new_privileges": status["NoNewPrivs"].strip(),
    "seccomp": status["Seccomp"].strip(),
    "interfaces": sorted(os.listdir("/sys/class/net")),
    "connect": tried(lambda: socket.create_connection(("192.0.2.1", 80), timeout=20)),
    "resolve": tried(lambda: socket.getaddrinfo("example.org", 80)),
    "root": tried(lambda: open("/written", "w")),
    "opt": tried(lambda: open("/opt/labs/written", "w")),
    "lab": tried(lambda: open("/lab/labs/written", "w")),
    "tmp": tried(lambda: open("/tmp/written", "w")),
    "home": tried(lambda: os.makedirs(os.path.expanduser("~/a"), exist_ok=True)),
    "outputs": tried(lambda: open("/lab/outputs/written", "w")),
    "first": open("/proc/1/comm").read().strip(),
    "shm": os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize,
    "devices": sorted(os.listdir("/dev")),
    "memory": [open(name).read().strip() for name in (
        "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"
    ) if os.path.exists(name)],
}))
"""
)


def owners_below(folder: Path) -> set[tuple[int, int]]:
    return {(one.lstat().st_uid, one.lstat().st_gid) for one in (folder, *folder.rglob("*"))}


def test_a_lab_is_confined_to_its_container(clone: Clone) -> None:
    lab = clone.bare_lab(PROBE)
    ended = clone.invoke("lab", lab, "--runtime", "docker")
    assert ended.code == 0, ended
    seen = json.loads(ended.out)
    assert {seen["effective"], seen["permitted"], seen["bounding"]} == {"0" * 16}
    assert seen["no_new_privileges"] == "1"
    assert seen["seccomp"] == "2"
    assert seen["interfaces"] == ["lo"]
    assert seen["connect"] == "Network is unreachable"
    assert seen["resolve"] != "worked"
    assert {seen["root"], seen["opt"], seen["lab"]} == {"Read-only file system"}
    assert {seen["tmp"], seen["home"], seen["outputs"]} == {"worked"}
    assert (clone.outputs / "written").is_file()
    assert not (clone.path / "labs" / "written").exists()
    assert seen["first"] in ("docker-init", "tini")
    assert seen["shm"] == 2**30
    machine = connect().memory
    if machine:  # the engine can limit memory
        (limit,) = map(int, seen["memory"])
        assert 0.79 * machine < limit <= 0.8 * machine
        assert f"It may use {limit / 2**30:.0f} GiB of memory; LABS_MEMORY" in ended.err
    assert not {"kfd", "dri", "nvidia0", "kvm", "fuse"} & set(seen["devices"])


EVERYWHERE = """
def writable(folder):
    name = os.path.join(folder, "llm-labs-probe")
    try:
        open(name, "w").close()
        os.remove(name)
        return True
    except OSError:
        return False

found = set()
for folder, below, _ in os.walk("/"):
    below[:] = [one for one in below if os.path.join(folder, one) not in ("/proc", "/sys")]
    if writable(folder):
        found.add(folder)
        below.clear()
kernel = [one for one in ("/proc/sys", "/sys", "/sys/fs/cgroup") if os.access(one, os.W_OK)]
raw = []
for name in os.listdir("/dev"):
    try:
        mode = os.stat(f"/dev/{name}").st_mode
        if stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
            raw.append(name)
    except OSError:
        pass
print(json.dumps({"writable": sorted(found), "kernel": kernel, "devices": sorted(raw)}))
"""
# Devices that every container has; none is a device of the host.
HARMLESS = {"full", "null", "ptmx", "random", "tty", "urandom", "zero", "console"}
HARMLESS |= {"stdin", "stdout", "stderr"}


@pytest.mark.usefixtures("root")
def test_a_lab_can_only_write_to_memory_and_outputs_and_has_no_devices(
    clone: Clone,
) -> None:
    lab = clone.bare_lab("import stat" + EVERYWHERE)
    clone.give_to(SOMEBODY)  # root can also write to /dev, which is in memory
    ended = clone.invoke("lab", lab, "--runtime", "docker")
    assert ended.code == 0, ended
    seen = json.loads(ended.out)
    ours = ["/lab/outputs", "/lab/work/progress"]
    assert seen["writable"] == ["/dev/mqueue", "/dev/shm", *ours, "/tmp"]
    assert seen["kernel"] == []
    assert {"null", "urandom"} <= set(seen["devices"]) <= HARMLESS


@pytest.mark.usefixtures("root")
def test_under_sudo_the_lab_runs_as_the_owner_of_the_clone(clone: Clone) -> None:
    """Run with the variables that sudo leaves; the site's settings are in .env."""
    lab = clone.bare_lab("open('outputs/mine', 'w'); print(os.getuid())")
    base = os.environ.get("LABS_BASE_IMAGE")
    (clone.path / ".env").write_text(f"LABS_BASE_IMAGE={base}\n" if base else "")
    clone.give_to(SOMEBODY)
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    words = ["env", "-i", path, "HOME=/root", f"SUDO_UID={SOMEBODY}", "SUDO_USER=somebody"]
    ended = clone.invoke("lab", lab, "--runtime", "docker", user=words)
    assert ended.code == 0, ended
    assert "Building" not in ended.err
    assert ended.out.strip() == str(SOMEBODY)
    assert owners_below(clone.path) == {(SOMEBODY, SOMEBODY)}, "a file belongs to root"


def test_online_enables_the_network_and_mounts_the_hub_cache(clone: Clone) -> None:
    hub = clone.path / "hub cache"
    lab = clone.bare_lab(
        "print(sorted(os.listdir('/sys/class/net')), os.environ['HF_HUB_OFFLINE'])\n"
        "open(os.environ['HF_HOME'] + '/kept', 'w')"
    )
    ended = clone.invoke("lab", lab, "--runtime", "docker", "--online", HF_HOME=str(hub))
    assert ended.code == 0, ended
    assert ended.out.strip() == "['eth0', 'lo'] 0"
    assert (hub / "kept").is_file()


@pytest.mark.usefixtures("root")
def test_a_clone_of_root_gets_files_of_root(clone: Clone) -> None:
    ended = clone.invoke("lab", clone.bare_lab("open('outputs/mine', 'w')"), "--runtime", "docker")
    assert ended.code == 0, ended
    assert owners_below(clone.outputs) == {(0, 0)}


@pytest.mark.usefixtures("root")
def test_files_belong_to_the_owner_of_the_clone_if_root_calls(clone: Clone) -> None:
    lab = clone.bare_lab("open('outputs/mine', 'w'); print(os.getuid(), os.getgid())")
    clone.give_to(SOMEBODY)
    ended = clone.invoke("lab", lab, "--runtime", "docker")
    assert ended.code == 0, ended
    assert ended.out.split() == [str(SOMEBODY)] * 2
    assert owners_below(clone.path) == {(SOMEBODY, SOMEBODY)}, "a file belongs to root"


def test_an_ordinary_user_in_the_group_of_the_socket_can_run_labs(
    clone: Clone, socket_group: int
) -> None:
    lab = clone.bare_lab("open('outputs/mine', 'w'); print(os.getuid(), os.getgroups())")
    clone.give_to(SOMEBODY)
    user = as_user(SOMEBODY, socket_group)
    ended = clone.invoke("lab", lab, "--runtime", "docker", user=user, HOME=str(clone.path))
    assert ended.code == 0, ended
    assert ended.out.strip() == f"{SOMEBODY} [{SOMEBODY}]"
    assert owners_below(clone.outputs) == {(SOMEBODY, SOMEBODY)}


def test_a_lab_finds_its_models_and_writes_its_report(clone: Clone) -> None:
    lab = clone.kit_lab('''
@lab.experiment
def models(run: Run):
    """The models exist."""
    size = (assets.smollm2() / "model.safetensors").stat().st_size
    run.check("bytes of the weights", size, at_least=269e6)  # 134.5 M of 2 bytes
    run.check("the hub is off", os.environ["HF_HUB_OFFLINE"], equals="1")
    run.check("threads sleep while they wait", os.environ["OMP_WAIT_POLICY"], equals="PASSIVE")
''')
    ended = clone.invoke("lab", lab, "--runtime", "docker")
    assert ended.code == 0, ended
    (report,) = clone.outputs.glob("LLM90/*/report.html")
    results = json.loads((report.parent / "results.json").read_text())
    assert results["environment"]["stack"]["stack"] == "cpu"
    assert len(results["environment"]["stack"]["lock"]) == 64
    assert not list(clone.path.glob("labs/**/__pycache__"))


def test_two_launches_at_once_both_succeed(clone: Clone) -> None:
    lab = clone.kit_lab('''
@lab.experiment
def waits(run: Run):
    """Both run at once."""
    (run.folder.parent.parent / run.options.word).touch()
    for _ in range(1200):
        if all((run.folder.parent.parent / word).exists() for word in ("a", "b")):
            break
        time.sleep(0.05)
    run.check("the other", (run.folder.parent.parent / "b").exists(), equals=True)
''')
    words = ("lab", lab, "--runtime", "docker", "--", "--word")
    first = clone.start_invoke(*words, "a")
    second = clone.start_invoke(*words, "b")
    assert first.ended().code == 0, first.text
    assert second.ended().code == 0, second.text
    assert len(list(clone.outputs.glob("LLM90/*/results.json"))) == 2


# Exit codes


def test_a_failed_check_gives_exit_code_1(clone: Clone) -> None:
    lab = clone.kit_lab('''
@lab.experiment
def wrong(run: Run):
    """Two and two are five."""
    run.check("the sum", 2 + 2, equals=5)
''')
    ended = clone.invoke("lab", lab, "--runtime", "docker")
    assert ended.code == 1, ended
    assert "what: 1 of LLM90's checks failed" in ended.err
    assert "the sum" in ended.err
    assert "Traceback" not in ended.out + ended.err


def test_a_crash_shows_the_full_traceback_and_gives_exit_code_1(clone: Clone) -> None:
    lab = clone.bare_lab("def deep():\n    return {}['nothing']\ndeep()")
    ended = clone.invoke("lab", lab, "--runtime", "docker")
    assert ended.code == 1, ended
    for line in ("Traceback (most recent call last)", "in deep", "KeyError: 'nothing'"):
        assert line in ended.err
    assert "launcher/" not in ended.err


@pytest.mark.parametrize("code", [0, 1, 2, 3, 77])
def test_the_exit_code_of_the_lab_is_the_exit_code_of_the_command(clone: Clone, code: int) -> None:
    ended = clone.invoke("lab", clone.bare_lab(f"return {code}"), "--runtime", "docker")
    assert ended.code == code, ended
    assert "Traceback" not in ended.err


def test_a_lab_over_its_memory_limit_ends_with_137_and_a_card(clone: Clone) -> None:
    lab = clone.bare_lab("kept = []\nwhile True:\n    kept.append(bytearray(2**24))")
    ended = clone.invoke("lab", lab, "--runtime", "docker", LABS_MEMORY="80m")
    assert ended.code == 137, ended
    assert "what: LLM91 was killed (137)." in ended.err
    assert "needed more memory than the limit allows" in ended.err
    assert "LABS_MEMORY" in ended.err
    assert "Traceback" not in ended.err


def test_a_killed_lab_ends_with_137_and_a_card(clone: Clone) -> None:
    lab = clone.bare_lab("os.kill(os.getpid(), signal.SIGKILL)")
    ended = clone.invoke("lab", lab, "--runtime", "docker")
    assert ended.code == 137, ended
    assert "A process sent it KILL" in ended.err


def test_a_crash_in_native_code_is_reported_with_its_signal(clone: Clone) -> None:
    lab = clone.bare_lab("os.kill(os.getpid(), signal.SIGSEGV)")
    ended = clone.invoke("lab", lab, "--runtime", "docker")
    assert ended.code == 128 + 11, ended
    assert "ended by signal 11" in ended.err


# Output


def test_output_is_streamed_while_the_lab_runs(clone: Clone) -> None:
    lab = clone.bare_lab(
        "print('first')\nprint('aside', file=sys.stderr)\nwait_for('seen')\nprint('last')"
    )
    running = clone.start_invoke("lab", lab, "--runtime", "docker")
    running.wait_for("first")
    running.wait_for("aside")
    assert "last" not in running.text
    (clone.outputs / "seen").touch()
    ended = running.ended()
    assert ended.code == 0, ended
    assert ended.out == "first\nlast\n"
    assert "aside" in ended.err


@pytest.mark.parametrize("terminal", [None, (24, 80)])
def test_a_character_split_between_chunks_arrives_complete(
    clone: Clone, terminal: tuple[int, int] | None
) -> None:
    lab = clone.bare_lab(
        "sys.stdout.buffer.write(b'<\\xe2\\x82'); sys.stdout.flush()\n"
        "wait_for('half')\n"
        "sys.stdout.buffer.write(b'\\xac>\\n'); sys.stdout.flush()"
    )
    running = clone.start_invoke("lab", lab, "--runtime", "docker", terminal=terminal)
    running.wait_for(lambda: b"<\xe2\x82" in running.printed)
    assert b"\xac" not in running.printed
    (clone.outputs / "half").touch()
    assert running.ended().code == 0, running.text
    assert "<€>".encode() in running.printed


def test_the_terminal_in_the_container_has_the_size_of_the_users_and_follows_it(
    clone: Clone,
) -> None:
    lab = clone.bare_lab("""
print("a terminal:", sys.stdout.isatty())
def size_becomes(columns, lines):
    for _ in range(1200):
        if os.get_terminal_size() == (columns, lines):
            print("size", columns, lines)
            return
        time.sleep(0.05)
    sys.exit(f"the size is {os.get_terminal_size()}")
size_becomes(101, 33)
size_becomes(67, 21)
""")
    running = clone.start_invoke("lab", lab, "--runtime", "docker", terminal=(33, 101))
    running.wait_for("a terminal: True")
    running.wait_for("size 101 33")
    running.resize(21, 67)
    running.wait_for("size 67 21")
    assert running.ended().code == 0, running.text


def test_a_lab_without_terminal_input_is_not_interactive(clone: Clone) -> None:
    lab = clone.bare_lab("print('can be asked:', sys.stdin.isatty() and sys.stdout.isatty())")
    words = f"{BIN}/invoke lab {lab} --runtime docker < /dev/null"
    running = clone.start("bash", "-c", words, terminal=(24, 80))
    assert running.ended().code == 0, running.text
    assert "can be asked: False" in running.text


def test_a_closed_pipe_ends_the_lab_quietly(clone: Clone) -> None:
    lab = clone.bare_lab("for number in range(100_000):\n    print('line', number)")
    invoke = "$0 lab LLM91 --runtime docker | head -n 1"

    assert lab == "LLM91"
    ended = clone.run("bash", "-c", invoke, str(BIN / "invoke"))
    assert ended.out == "line 0\n"
    assert "Traceback" not in ended.err, ended


@pytest.mark.parametrize(("zone", "offset"), [("UTC", "+0000"), ("<+0530>-5:30", "+0530")])
def test_a_lab_has_the_time_of_its_machine(clone: Clone, zone: str, offset: str) -> None:
    lab = clone.bare_lab("print(time.strftime('%z'))")
    ended = clone.invoke("lab", lab, "--runtime", "docker", TZ=zone)
    assert ended.out.strip() == offset, ended


def test_a_lab_may_print_nothing_for_longer_than_the_engine_may_take(clone: Clone) -> None:
    """The limit of 60 s for the engine's other responses is 5 s here."""
    clone.make_folders()
    dry = clone.invoke("--dry", "lab", "LLM06", "--runtime", "docker")
    image = shlex.split(dry.out.splitlines()[-1])[-2]
    (clone.path / "labs" / "__main__.py").write_text("import time; time.sleep(7)")
    client = docker.from_env(timeout=5)
    spec = ContainerSpec(image, binds=(Bind(f"{clone.path}/labs", "/lab/labs"),))
    assert run_container.run(Engine(client, False, ""), spec, "silent") == 0
    client.close()


# The outputs folder


@pytest.fixture
def mounted(clone: Clone, request: pytest.FixtureRequest):
    """Return a function that mounts a file system on the outputs folder; unmount it later."""
    request.getfixturevalue("root")
    clone.outputs.mkdir()

    def mount(*words: str) -> None:
        ended = clone.run("mount", *words, str(clone.outputs))
        assert ended.code == 0, ended

    yield mount
    while os.path.ismount(clone.outputs):
        assert clone.run("umount", str(clone.outputs)).code == 0


def test_a_full_outputs_folder_is_a_card(clone: Clone, mounted) -> None:
    mounted("-t", "tmpfs", "-o", "size=64k", "tmpfs")
    lab = clone.kit_lab('''
@lab.experiment
def writes(run: Run):
    """The figure doesn't fit."""
    (run.folder / "figures" / "large").write_bytes(b"x" * 1_000_000)
''')
    ended = clone.invoke("lab", lab, "--runtime", "docker")
    assert ended.code == 3, ended
    assert "The disk is full" in ended.err
    assert "Traceback" not in ended.out + ended.err


def test_a_disk_that_is_full_at_the_start_has_the_same_card(clone: Clone, mounted) -> None:
    mounted("-t", "tmpfs", "-o", "size=64k", "tmpfs")
    with (clone.outputs / "full").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    ended = clone.invoke("lab", clone.kit_lab(NOTHING), "--runtime", "docker")
    assert ended.code == 3, ended
    assert "The run's files can't be written to outputs/LLM90/" in ended.err
    assert "The disk is full" in ended.err
    assert "Traceback" not in ended.out + ended.err
    assert not list(clone.outputs.glob("LLM90/*"))


def test_a_read_only_outputs_folder_is_a_card(clone: Clone, mounted) -> None:
    mounted("-t", "tmpfs", "-o", "ro", "tmpfs")
    ended = clone.invoke("lab", clone.kit_lab(NOTHING), "--runtime", "docker")
    assert ended.code == 3, ended
    assert "what: " in ended.err
    assert "read-only" in ended.err
    assert "Traceback" not in ended.out + ended.err


def test_an_outputs_folder_of_another_user_is_a_card(clone: Clone, socket_group: int) -> None:
    lab = clone.bare_lab("print('ran')")
    clone.give_to(SOMEBODY)
    clone.outputs.mkdir()  # root's
    user = as_user(SOMEBODY, socket_group)
    ended = clone.invoke("lab", lab, "--runtime", "docker", user=user, HOME=str(clone.path))
    assert ended.code == 3, ended
    assert f"{clone.outputs} can't be written" in ended.err
    assert "sudo chown" in ended.err
    assert ended.out == ""


def test_a_file_in_place_of_the_outputs_folder_is_a_card(clone: Clone) -> None:
    lab = clone.bare_lab("print('ran')")
    clone.outputs.write_text("a file")
    ended = clone.invoke("lab", lab, "--runtime", "docker")
    assert ended.code == 3, ended
    assert f"what: {clone.outputs}" in ended.err
    assert "Traceback" not in ended.err
