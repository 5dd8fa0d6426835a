"""`invoke accept`: its record and page, slow cards, comparisons, and one real run."""

import copy
import json
import os
from pathlib import Path
from typing import Any

from launcher import (
    accept,
    accept_compare,
    accept_inventory,
    accept_judge,
    accept_page,
    accept_peaks,
    accept_record,
    accept_run,
    placement,
)
from launcher.accept_noise import compare, compare_with_all, spread
from launcher.accept_record import FORMAT, Record
from launcher.cards import Card
from launcher.detect_gpus import detect
from launcher.file_owner import file_owner
from launcher.findings import FIX, NOTE, OK, Finding
from launcher.gpu import Gpu
from launcher.lab_command import LabCommand
from launcher.placement import Placement
from tests.browser import overflow, page_of, violations
from tests.conftest import Clone
from tests.launcher.device_trees import GIB, add_amd_gpu, device, write

import pytest

QUIET = [100.0, 101, 99, 100, 102, 98, 100]  # spread 1.5 %
LIVELY = [100.0, 110, 90, 100, 112, 92, 100]
NOISY = [100.0, 140, 70, 100, 130, 75, 60]
PRODUCT = "matrix product, bf16"


def scaled(values: list[float], factor: float) -> list[float]:
    return [value * factor for value in values]


def measured(name: str, values: list[float], problem: str = "", core: str = "") -> dict[str, Any]:
    how = {"unit": "GFLOP/s", "amount": 2e9, "problem": problem, "core": core}
    return {"name": name, "values": values, **how}


def record_of(*cards: dict[str, Any], **changes: Any) -> Record:
    """Return a signed record of two equal cards, or of the given ones."""
    both = [card("amd 0", QUIET), card("amd 1", QUIET)]
    record: Record = {
        "format": FORMAT,
        "machine": "one",
        "time": "2026-11-01T10:00:00+00:00",
        "version": "0.8.0",
        "size": "full",
        "stack": "rocm",
        "runtime": "a container",
        "load": {"start": 0.5, "end": 8.0, "cores": 8},
        "inventory": {
            "machine": {"CPU": "a <fast> CPU"},
            "cards": {"amd 0": {"GPU": "AMD Instinct MI300X"}, "amd 1": {"GPU": "AMD GPU"}},
        },
        "findings": [{"name": "amd 0", "value": "41 °C", "state": OK, "fix": ""}],
        "cards": list(cards) or both,
        "labs": [{"card": "amd 0", "lab": "LLM03", "checks": "9 of 9", "problem": ""}],
        "failures": [],
        **changes,
    }
    judged = {"faults": accept_judge.faults(record), "doubts": accept_judge.doubts(record)}
    record = {**record, **judged}
    return {**record, "sha256": accept_record.digest(record)}


def card(name: str, values: list[float], problem: str = "") -> dict[str, Any]:
    found = [measured(PRODUCT, values, problem)]
    return {"name": name, "device": "AMD Instinct MI300X", "torch": "2.13", "measurements": found}


def verdicts(a: Record, b: Record) -> dict[tuple[str, str], str]:
    rows = accept_compare.compare_records(a, b)
    return {(row.card, row.name): row.verdict for row in rows}


# Noise


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (QUIET, QUIET, "same"),
        (QUIET, scaled(QUIET, 0.97), "same"),
        (QUIET, scaled(QUIET, 0.85), "slower"),
        (QUIET, scaled(QUIET, 1.2), "faster"),
        (LIVELY, scaled(LIVELY, 0.8), "same"),
        (LIVELY, scaled(QUIET, 0.6), "slower"),
        (NOISY, scaled(NOISY, 0.6), "too noisy to tell"),
        (QUIET, scaled(NOISY, 0.6), "too noisy to tell"),
        (NOISY, scaled(QUIET, 0.2), "too noisy to tell"),
        ([5.0] * 7, [4.9] * 7, "same"),
        ([5.0] * 7, [4.7] * 7, "slower"),
    ],
)
def test_a_change_counts_beyond_five_percent_and_three_spreads(
    before: list[float], after: list[float], verdict: str
) -> None:
    assert compare(before, after).verdict == verdict


def test_slower_one_way_is_faster_the_other_way() -> None:
    for factor in (0.5, 0.8, 0.9, 0.95, 1.0, 1.06):
        there = compare(QUIET, scaled(QUIET, factor))
        back = compare(scaled(QUIET, factor), QUIET)
        assert there.noise == pytest.approx(back.noise)
        opposite = {"slower": "faster", "faster": "slower", "same": "same"}
        assert back.verdict == opposite[there.verdict]


def test_one_round_that_a_program_disturbed_changes_neither_rate_nor_spread_much() -> None:
    disturbed = [*QUIET[:-1], 10.0]
    assert spread(disturbed) < 0.03
    assert compare(QUIET, disturbed).verdict == "same"


# Faults name their card


def test_a_card_that_is_slower_than_the_others_is_named() -> None:
    cards = [card(f"amd {i}", scaled(QUIET, 0.8 if i == 5 else 1)) for i in range(8)]
    (fault,) = record_of(*cards)["faults"]
    assert fault.startswith(f"amd 5: {PRODUCT} is slow: 0.80 of the median rate")
    assert compare_with_all(QUIET, [QUIET, scaled(QUIET, 0.8), QUIET]).verdict == "same"


def test_equal_cards_and_a_faster_one_are_no_fault() -> None:
    assert record_of()["faults"] == []
    cards = [card("amd 0", QUIET), card("amd 1", QUIET), card("amd 2", scaled(QUIET, 1.3))]
    assert record_of(*cards)["faults"] == []


def test_a_slow_core_is_named() -> None:
    name = "matrix product, fp32, one core"
    found = [
        measured(name, scaled(QUIET, 0.5 if i == 1 else 1), core=f"core {i}") for i in range(4)
    ]
    cpu = {"name": "cpu", "device": "a CPU", "torch": "2.13", "measurements": found}
    (fault,) = record_of(cpu)["faults"]
    assert fault.startswith(f"core 1: {name} is slow: 0.50 of")


def cores(*factors: float, values: list[float] = QUIET) -> dict[str, Any]:
    name = "matrix product, fp32, one core"
    found = [measured(name, scaled(values, f), core=f"core {i}") for i, f in enumerate(factors)]
    return {"name": "cpu", "device": "a CPU", "torch": "2.13", "measurements": found}


def test_of_two_cores_the_slower_one_is_compared_with_the_faster_one() -> None:
    record = record_of(cores(1, 0.5))
    (fault,) = record["faults"]
    assert "core 1" in fault and "0.50 of the faster of two cores; noise is 0.94 to 1.06" in fault
    assert record["doubts"] == []


def test_with_much_noise_there_is_no_verdict_on_slow_cores() -> None:
    record = record_of(cores(1, 0.04, values=NOISY))
    assert record["faults"] == []
    assert len(record["doubts"]) == 3
    assert "core 1" in record["doubts"][1] and "too noisy to tell" in record["doubts"][1]


def test_on_a_busy_machine_there_is_no_verdict_on_slow_cores() -> None:
    record = record_of(cores(1, 0.5), load={"start": 29.4, "end": 3.0, "cores": 2})
    assert record["faults"] == []
    busy = "The machine was busy (load 29.4 on 2 cores): repeat when it isn't."
    assert record["doubts"] == [busy]
    page = accept_page.render({**record, "sha256": "0"})
    assert busy.replace("'", "&#x27;") in page and "No fault was found" not in page
    assert "Size full. The load was 29.4 at the start and 3 at the end, on 2 cores." in page


def test_wrong_results_failed_labs_and_bad_health_are_named() -> None:
    bad = card("amd 1", QUIET, "1 of 768 sums are wrong")
    record = record_of(
        card("amd 0", QUIET),
        bad,
        failures=["amd 2: the measurement ended with 1"],
        labs=[{"card": "amd 0", "lab": "LLM06", "checks": "8 of 9", "problem": "failed checks: x"}],
        findings=[{"name": "amd 0", "value": "7 errors", "state": FIX, "fix": "sudo reboot"}],
    )
    assert record["faults"] == [
        "amd 2: the measurement ended with 1",
        "amd 0: 7 errors. To fix: sudo reboot",
        f"amd 1: {PRODUCT} is wrong: 1 of 768 sums are wrong",
        "amd 0: LLM06 failed: failed checks: x",
    ]


# Records


def test_a_record_is_read_back_however_it_is_laid_out(tmp_path: Path) -> None:
    record = accept_record.write(record_of(), tmp_path)
    assert accept_record.read(tmp_path) == record
    other = tmp_path / "other.json"
    other.write_text(json.dumps(dict(reversed(record.items()))))
    assert accept_record.read(other) == record


def test_a_changed_record_is_refused(tmp_path: Path) -> None:
    accept_record.write(record_of(), tmp_path)
    file = tmp_path / accept_record.NAME
    file.write_text(file.read_text().replace("102", "112", 1))
    with pytest.raises(Card, match="was changed") as caught:
        accept_record.read(tmp_path)
    assert caught.value.code == 2 and "SHA-256" in caught.value.why


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (None, "can't be read"),
        ("", "can't be read"),
        ("\udcff", "can't be read"),
        ("[1]", "isn't a record"),
        ("{}", "isn't a record"),
        ('{"format": "llm-labs accept 2"}', "has another format"),
        (f'{{"format": "{FORMAT}"}}', "was changed"),
    ],
)
def test_a_file_that_is_no_record_is_refused(tmp_path: Path, text: str | None, what: str) -> None:
    file = tmp_path / "a.json"
    if text is not None:
        file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(Card, match=what) as caught:
        accept_compare.run(str(file), str(file))
    assert caught.value.code == 2 and "accept.json" in caught.value.fix


# Comparisons


def write_both(folder: Path, a: Record, b: Record) -> tuple[str, str]:
    for name, record in (("a", a), ("b", b)):
        (folder / name).mkdir()
        accept_record.write(record, folder / name)
    return str(folder / "a"), str(folder / "b")


def test_equal_records_are_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert accept_compare.run(*write_both(tmp_path, record_of(), record_of(machine="two"))) == 0
    printed = capsys.readouterr().out
    assert printed.endswith("\nThe same within the noise.\n")
    assert "A: one, 2026-11-01" in printed and "B: two, " in printed
    assert f"amd 0\t{PRODUCT}\t100\t100\tGFLOP/s\t1.00\t0.94 to 1.06\tsame\n" in printed


def test_a_record_is_not_compared_with_itself(tmp_path: Path) -> None:
    with pytest.raises(Card, match="the same record") as caught:
        accept_compare.run(*write_both(tmp_path, record_of(), record_of()))
    assert caught.value.code == 2


def test_a_noisy_record_has_no_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noisy = record_of(card("amd 0", NOISY), card("amd 1", QUIET))
    assert accept_compare.run(*write_both(tmp_path, record_of(), noisy)) == 0
    assert "1 of 3 rows are too noisy to tell: repeat" in capsys.readouterr().out


def test_a_slower_card_is_found_with_its_ratio(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slower = record_of(card("amd 0", QUIET), card("amd 1", scaled(QUIET, 0.7)))
    assert accept_compare.run(*write_both(tmp_path, record_of(), slower)) == 1
    printed = capsys.readouterr().out
    assert f"amd 1\t{PRODUCT}\t100\t70\tGFLOP/s\t0.70\t0.94 to 1.06\tslower" in printed
    assert "B is not as good as A: 1 slower." in printed


def test_on_a_busy_machine_no_card_is_called_slower(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loads = [{"start": 1.0, "end": load, "cores": 2} for load in (4.4, 5.5)]
    slower = record_of(card("amd 0", QUIET), card("amd 1", scaled(QUIET, 0.7)), load=loads[1])
    assert accept_compare.run(*write_both(tmp_path, record_of(load=loads[0]), slower)) == 0
    printed = capsys.readouterr().out
    assert "is not as good" not in printed and "\tslower" in printed, "the table has it"
    says = "A was measured at load 4.4 on 2 cores, B was measured at load 5.5 on 2 cores"
    assert f"\nNo verdict on speed: {says}; repeat on an idle machine.\n" in printed


def test_on_a_busy_machine_a_missing_card_is_still_worse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    less = record_of(card("amd 0", scaled(QUIET, 0.7)), load={"start": 9, "end": 9, "cores": 2})
    assert accept_compare.run(*write_both(tmp_path, record_of(), less)) == 1
    printed = capsys.readouterr().out
    assert "B is not as good as A: 1 missing." in printed
    assert "No verdict on speed: B was measured at load 9.0 on 2 cores;" in printed


def test_a_faster_machine_is_not_worse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faster = record_of(*(card(f"amd {i}", scaled(QUIET, 1.5)) for i in range(2)))
    assert accept_compare.run(*write_both(tmp_path, record_of(), faster)) == 0
    assert "B is faster than A in 2 of 3 rows, and slower in none." in capsys.readouterr().out


def test_missing_new_and_wrong_measurements_have_their_verdicts() -> None:
    less = record_of(card("amd 0", QUIET))
    assert verdicts(record_of(), less)["amd 1", PRODUCT] == "missing"
    assert verdicts(less, record_of())["amd 1", PRODUCT] == "new"
    wrong = record_of(card("amd 0", scaled(QUIET, 2), "9 sums are wrong"), card("amd 1", QUIET))
    assert verdicts(record_of(), wrong)["amd 0", PRODUCT] == "wrong"
    assert verdicts(wrong, record_of())["amd 0", PRODUCT] == "slower", "however it got that rate"


def test_labs_are_compared_by_their_results() -> None:
    fine = record_of()
    bad = record_of(labs=[{**fine["labs"][0], "problem": "failed checks: x"}])
    lab = ("amd 0", "LLM03")
    assert verdicts(fine, bad)[lab] == "failed"
    assert verdicts(bad, fine)[lab] == "passed"
    assert verdicts(fine, fine)[lab] == "same"
    assert verdicts(fine, record_of(labs=[]))[lab] == "missing"


def test_memory_errors_of_the_second_machine_make_it_worse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = {"name": "amd 0", "value": "7 errors", "state": FIX, "fix": "sudo reboot"}
    assert accept_compare.run(*write_both(tmp_path, record_of(), record_of(findings=[errors]))) == 1
    assert "B, amd 0: 7 errors. To fix: sudo reboot" in capsys.readouterr().out


def test_measurements_of_other_sizes_are_refused() -> None:
    small = copy.deepcopy(record_of())
    small["size"] = "tiny"
    small["cards"][0]["measurements"][0]["amount"] = 1e3
    with pytest.raises(Card, match="can't be compared") as caught:
        accept_compare.compare_records(record_of(), small)
    assert "amd 0" in caught.value.why and "tiny" in caught.value.why


@pytest.mark.parametrize(
    ("words", "what", "fix"),
    [
        (("--gpus", "1", "--stack", "cpu"), "The cpu stack uses no GPU.", "leave out --gpus"),
        (("--runtime", "pyxis"), "--runtime pyxis needs", "invoke accept with --runtime docker"),
        (("--runtime", "moon"), "--runtime can't be 'moon'.", "invoke accept --help"),
    ],
)
def test_an_impossible_request_is_a_card_of_this_task(
    clone: Clone, words: tuple[str, ...], what: str, fix: str
) -> None:
    ended = clone.invoke("accept", "--labs", "none", *words)
    assert ended.code == 2 and f"what: {what}" in ended.err, ended
    assert f"fix: {fix}" in ended.err


def test_the_second_file_may_not_be_left_out(clone: Clone) -> None:
    ended = clone.invoke("accept", "--compare", "a.json")
    assert ended.code == 2 and "needs two records" in ended.err, ended
    ended = clone.invoke("accept", "--compare", "a.json", "b.json")
    assert ended.code == 2 and "what: a.json can't be read." in ended.err, ended
    assert "Traceback" not in ended.err


# Peaks and the page


@pytest.mark.parametrize(
    ("name", "bf16", "memory"),
    [
        ("AMD Instinct MI300X OAM", 1_307_400, 5300),
        ("NVIDIA H100 80GB HBM3", 989_400, 3350),
        ("NVIDIA H100 PCIe", 756_000, 2000),
        ("NVIDIA A100-SXM4-80GB", 312_000, 2039),
    ],
)
def test_the_peak_of_a_card_is_found_by_its_name(name: str, bf16: float, memory: float) -> None:
    peak = accept_peaks.find(name)
    assert peak is not None
    assert accept_peaks.rate(peak, PRODUCT) == pytest.approx(bf16)
    assert accept_peaks.rate(peak, "memory triad") == memory
    assert accept_peaks.rate(peak, "all-reduce") == 0


def test_a_card_without_a_known_peak_says_so() -> None:
    assert accept_peaks.find("Radeon RX 7900", "NVIDIA GPU") is None
    other = {**card("amd 1", QUIET), "device": "Radeon"}
    rows = {
        row[0]: row for row in accept_page.measured_rows(record_of(card("amd 0", QUIET), other))
    }
    assert rows["amd 0"][4] == "0% of 1,307,400"
    assert rows["amd 1"][4] == "its peak isn't known"


def test_the_page_shows_faults_and_signature_and_escapes_its_content() -> None:
    record = record_of(card("amd 0", QUIET, "<script>"), card("amd 1", QUIET))
    page = accept_page.render(record)
    assert record["sha256"] in page
    assert "&lt;script&gt;" in page and "<script" not in page
    assert "a &lt;fast&gt; CPU" in page
    assert "No fault was found." not in page
    assert "No fault was found." in accept_page.render(record_of())


def test_the_page_is_accessible_and_fits_a_phone(tmp_path: Path, browser: Any) -> None:
    page = accept_page.write(
        record_of(card("amd 0", QUIET, "wrong"), card("amd 1", QUIET)), tmp_path
    )
    for width, scheme in ((360, "light"), (1280, "dark")):
        with page_of(browser, page, width, scheme) as shown:
            assert violations(shown) == []
            assert overflow(shown) <= 0


# The inventory


def test_an_amd_cards_firmware_links_and_clocks_are_read(tmp_path: Path) -> None:
    node = add_amd_gpu(tmp_path, 1, 90402, 128, 192 * GIB, unique=5)
    for number, kind in enumerate((11, 11, 2)):
        write(node / f"io_links/{number}/properties", f"type {kind}\nversion_major 0\n")
    folder = tmp_path / "sys/class/drm/renderD128/device"
    for name, text in {
        "vbios_version": "113-M3000100-102\n",
        "current_link_speed": "32.0 GT/s PCIe\n",
        "current_link_width": "8\n",
        "max_link_width": "16\n",
        "pp_dpm_sclk": "0: 132Mhz\n1: 2100Mhz *\n2: 2101Mhz\n",
        "ras/umc_err_count": "ue: 0\nce: 3\n",
        "fw_version/smc_fw_version": "0x00557300\n",
    }.items():
        write(folder / name, text)
    known = accept_inventory.cards(detect(tmp_path).gpus, tmp_path)["amd 0"]
    assert known["vbios"] == "113-M3000100-102"
    assert known["clock"] == "2100Mhz"
    assert known["XGMI links"] == "2"
    assert known["corrected memory errors"] == "3"
    assert known["firmware"] == "smc 0x00557300"
    assert "memory clock" not in known, "what can't be read is left out"
    (finding,) = accept_inventory.link_findings({"amd 0": known})
    assert finding.state == NOTE and "8 of 16 lanes" in finding.value


def test_an_nvidia_cards_values_come_from_nvidia_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    row = ["GPU-b", "96.00.99.00.01", "5", "5", "16", "16", "1980", "[N/A]", "0"]
    monkeypatch.setattr(accept_inventory, "query_nvidia_smi", lambda _: ([row], ""))
    gpu = Gpu("nvidia", 1, "NVIDIA H100", uuid="GPU-b")
    known = accept_inventory.cards([gpu])["nvidia 1"]
    assert known["vbios"] == "96.00.99.00.01" and known["clock"] == "1980"
    assert "memory clock" not in known
    assert accept_inventory.link_findings({"nvidia 1": known}) == []


def test_the_hosts_memory_errors_are_counted(tmp_path: Path) -> None:
    assert accept_inventory.memory_errors(tmp_path)[0].state == NOTE
    for name, text in (("mc0/ue_count", "0"), ("mc0/ce_count", "4"), ("mc1/ue_count", "0")):
        write(tmp_path / "sys/devices/system/edac/mc" / name, f"{text}\n")
    (fine,) = accept_inventory.memory_errors(tmp_path)
    assert fine.state == OK and fine.value.startswith("0 uncorrected, 4 corrected")
    write(tmp_path / "sys/devices/system/edac/mc/mc1/ue_count", "2\n")
    assert accept_inventory.memory_errors(tmp_path)[0].state == FIX


def test_a_cpu_above_its_critical_temperature_is_to_be_fixed(tmp_path: Path) -> None:
    assert accept_inventory.temperatures(tmp_path)[0].state == NOTE
    chip = tmp_path / "sys/class/hwmon/hwmon0"
    write(chip / "name", "k10temp\n")
    write(chip / "temp1_input", "61000\n")
    write(chip / "temp1_crit", "95000\n")
    assert accept_inventory.temperatures(tmp_path) == [
        Finding("CPU", "61 °C at the hottest sensor")
    ]
    write(chip / "temp1_input", "96000\n")
    assert accept_inventory.temperatures(tmp_path)[0].state == FIX


# Runs, with stand-ins


@pytest.fixture
def two_mi300x(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the launcher detect two MI300X, which are files in the shape of the kernel's."""
    root = tmp_path / "root"
    device(root, "/dev/kfd")
    for number, minor in ((1, 128), (2, 136)):
        add_amd_gpu(root, number, 90402, minor, 192 * GIB, unique=number)
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(placement, "detect", lambda **_: detect(root))
    return root


@pytest.mark.usefixtures("two_mi300x")
def test_each_gpu_is_measured_alone_then_all_together_then_with_labs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert accept.run("LLM03", "tiny", "auto", "venv", "", dry=True) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if " -m labs " in line]
    shown = [line.split("ROCR_VISIBLE_DEVICES=")[1].split()[0].strip("'") for line in lines]
    assert shown == ["0", "1", "0,1", "0", "1"]
    words = [line.split(" -m labs ")[1] for line in lines]
    assert [one.split()[0] for one in words] == [*3 * ["accept"], "LLM03", "LLM03"]
    assert words[2].endswith("all-cards.json --size tiny --processes 2")
    assert words[4].endswith("/labs-amd-1")


@pytest.mark.usefixtures("two_mi300x")
def test_one_gpu_that_is_named_is_measured_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert accept.run("none", "full", "rocm", "venv", "1,", dry=True) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if " -m labs " in line]
    assert len(lines) == 1 and "ROCR_VISIBLE_DEVICES=1 " in lines[0]


@pytest.mark.parametrize(("stack", "why"), [("auto", "there is no AMD"), ("cpu", "it was asked")])
def test_the_stack_s_real_reason_is_printed_once(
    stack: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(placement, "detect", lambda **_: detect(tmp_path))
    assert accept.run("LLM03", "tiny", stack, "venv", "", dry=True) == 0
    printed = capsys.readouterr().err
    assert printed.count(" stack, because ") == printed.count("It runs in ") == 1, printed
    assert f"accept runs on the cpu stack, because {why}" in printed
    for run in ("cpu: the measurement\n", "all cards: the measurement\n", "cpu: LLM03\n"):
        assert printed.count(run) == 1, printed


class Runs:
    """In place of `run_lab.run`: writes what a card's run would, or fails as it would."""

    def __init__(self, folder: Path, outcomes: dict[str, int | Card]) -> None:
        self.folder = folder
        self.outcomes = outcomes

    def __call__(self, command: LabCommand, *_: Any, **__: Any) -> int:
        words = command.words
        if command.verb != "accept":
            return 1
        name = Path(words[words.index("--out") + 1]).name
        outcome = self.outcomes.get(name, 0)
        if isinstance(outcome, Card):
            raise outcome
        if outcome == 0:
            found = {"device": "GPU", "torch": "2.13", "measurements": [measured(PRODUCT, QUIET)]}
            (self.folder / name).write_text(json.dumps(found))
        return outcome


def acceptance(folder: Path, labs: LabCommand | None = None) -> accept_run.Acceptance:
    gpus = (Gpu("amd", 0, "AMD MI300X"), Gpu("amd", 1, "AMD MI300X"))
    placed = Placement("rocm", gpus, file_owner(), "")
    inside = Path("outputs") / folder.name
    return accept_run.Acceptance(placed, "venv", "tiny", labs, inside, folder, dry=False)


def test_a_card_that_fails_is_named_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = Card("The lab was killed.", "It ran out of memory.", "use less")
    outcomes: dict[str, int | Card] = {"amd-0.json": 134, "all-cards.json": killed}
    monkeypatch.setattr(accept_run.run_lab, "run", Runs(tmp_path, outcomes))
    ran = acceptance(tmp_path)
    ran.run()
    assert [one["name"] for one in ran.cards] == ["amd 1"]
    assert ran.failures == [
        "amd 0: the measurement ended with 134",
        "all cards: the measurement failed: The lab was killed. It ran out of memory.",
    ]
    assert list(tmp_path.iterdir()) == [], "the runs' files are in the record"


def test_labs_are_judged_by_their_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = [{"name": "loss", "passed": False}, {"name": "shape", "passed": True}]
    experiment = {"name": "one", "crash": "", "checks": checks}
    results = tmp_path / "labs-amd-0" / "LLM03" / "2026-01-01_00-00-00" / "results.json"
    write(results, json.dumps({"passed": False, "experiments": [experiment]}))
    monkeypatch.setattr(accept_run.run_lab, "run", Runs(tmp_path, {}))
    ran = acceptance(tmp_path, LabCommand(("LLM03",), ("--size", "tiny")))
    ran.run()
    assert ran.results == [
        {"card": "amd 0", "lab": "LLM03", "checks": "1 of 2", "problem": "failed checks: loss"},
        {"card": "amd 1", "lab": "LLM03", "checks": "", "problem": "it left no results"},
    ]


def test_if_no_card_can_be_measured_there_is_a_card_and_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> int:
        return 3

    monkeypatch.setattr(accept_run.run_lab, "run", broken)
    monkeypatch.setattr(accept, "outputs_folder", lambda **_: tmp_path)
    with pytest.raises(Card, match="No card could be measured") as caught:
        accept.run("none", "tiny", "cpu", "venv", "", dry=False)
    assert "cpu: the measurement ended with 3" in caught.value.why
    assert not list(tmp_path.glob("accept/*"))


@pytest.mark.parametrize(
    ("options", "text"),
    [({"size": "huge"}, "--size can't be 'huge'"), ({"stack": "rocm"}, "has no AMD GPU")],
)
def test_what_can_t_be_measured_is_refused_first(options: dict[str, str], text: str) -> None:
    usual: Any = {"labs": "none", "size": "tiny", "stack": "cpu", "runtime": "venv", "gpus": ""}
    with pytest.raises(Card, match=text):
        accept.run(**{**usual, **options}, dry=True)


def test_an_unknown_lab_is_refused_before_anything_is_measured(clone: Clone) -> None:
    ended = clone.invoke("accept", "--labs", "LLM77", "--runtime", "venv")
    assert ended.code == 2 and "There is no lab called 'LLM77'." in ended.err, ended
    assert not clone.outputs.exists()


def test_without_an_engine_a_container_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    with pytest.raises(Card, match="No container engine is running"):
        accept.run("none", "tiny", "cpu", "docker", "", dry=True)


@pytest.mark.engine
def test_this_machine_is_measured_in_a_container(clone: Clone) -> None:
    words = ("accept", "--labs", "none", "--size", "tiny", "--runtime", "docker")
    ended = clone.invoke(*words)
    assert ended.code in (0, 1), ended  # a busy core may count as slow
    (file,) = clone.outputs.glob("accept/*/accept.json")
    record = accept_record.read(file)
    names = {name for _, name in accept_record.measurements(record)}
    assert {"matrix product, fp32", "memory triad", "all-reduce"} <= names
    cores = [on for on, _ in accept_record.measurements(record) if on.startswith("core ")]
    assert len(cores) == len(os.sched_getaffinity(0))
    assert not [one for one in record["faults"] if "wrong" in one or "failed" in one], ended
    assert record["sha256"] in (file.parent / "accept.html").read_text(encoding="utf-8")
    assert sorted(path.name for path in file.parent.iterdir()) == ["accept.html", "accept.json"]
    compared = clone.invoke("accept", "--compare", str(file), str(file.parent))
    assert compared.code == 2, compared
    assert "A and B are the same record." in compared.err
