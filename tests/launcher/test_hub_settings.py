"""workshop/hub.toml and the list of learners: good values, and cards that name a line."""

import subprocess
from pathlib import Path

from common.cards import Card
from launcher.engine.container_spec import ContainerSpec
from launcher.hub import folder as hub_folder
from launcher.hub import settings as hub_settings
from launcher.hub.users import is_allowed, read_users, readable_by_others
from launcher.run.file_owner import Owner

import pytest

GOOD = 'password = "a-long-word"\nteacher_password = "a-much-longer-word"\n'


def settings(folder: Path, text: str) -> hub_settings.HubSettings:
    (folder / "hub.toml").write_text(text, encoding="utf-8")
    return hub_settings.read(folder)


def refused(folder: Path, text: str) -> Card:
    with pytest.raises(Card) as raised:
        settings(folder, text)
    assert raised.value.code == 2
    assert raised.value.fix
    return raised.value


def test_two_passwords_are_enough(tmp_path: Path) -> None:
    hub = settings(tmp_path, GOOD)
    assert (hub.seats, hub.memory, hub.quota) == (30, 3 * 2**30, 2 * 2**30)
    assert (hub.idle, hub.longest, hub.network) == (3600, 12 * 3600, False)
    assert (hub.address, hub.solutions) == ("127.0.0.1", "open")
    assert settings(tmp_path, GOOD + 'solutions = "locked"\n').solutions == "locked"


def test_sizes_and_times_are_read_with_their_units(tmp_path: Path) -> None:
    hub = settings(tmp_path, GOOD + 'memory = "1.5g"\nquota = "300m"\nidle = "90m"\n')
    assert (hub.memory, hub.quota, hub.idle) == (3 * 2**29, 300 * 2**20, 5400)
    assert settings(tmp_path, GOOD + 'longest = "never"\n').longest == 0


@pytest.mark.parametrize(
    "line",
    [
        "seats = 0",
        'seats = "30"',
        "seats = true",
        "seats = 2.5",
        'memory = "lots"',
        'memory = "100m"',
        "memory = 3",
        "cpus = -1",
        "cpus = true",
        'quota = "1k"',
        'idle = "soon"',
        "idle = 60",
        'idle = "0m"',
        'longest = "0h"',
        'longest = "-1h"',
        'network = "yes"',
        'solutions = "closed"',
        "solutions = true",
        "port = 70000",
        "title = 3",
        'title = "two\\nlines"',
        'teacher = "The Teacher"',
        'teacher = "../x"',
        'address = "localhost"',
        'address = "::1"',
        "address = 0",
    ],
)
def test_a_value_that_isn_t_allowed_is_a_card_with_its_line(tmp_path: Path, line: str) -> None:
    card = refused(tmp_path, f"{GOOD}# a comment\n{line}\n")
    assert "Line 4 sets" in card.why
    assert line.partition(" ")[0] in card.why
    assert "Allowed is" in card.why


def test_a_setting_that_doesn_t_exist_is_named_with_its_line(tmp_path: Path) -> None:
    card = refused(tmp_path, GOOD + "\nseat = 3\n")
    assert "Line 4 sets 'seat'" in card.why
    assert "Did you mean seats?" in card.why
    assert "the settings are title" in refused(tmp_path, GOOD + "\nxyz = 3\n").fix
    assert "seats" in card.fix


@pytest.mark.parametrize("value", ["-1", "65", '"all"', "true", "1.5"])
def test_gpus_for_seats_are_a_number(tmp_path: Path, value: str) -> None:
    card = refused(tmp_path, f"{GOOD}gpus = {value}\n")
    assert card.why.endswith("Allowed is an integer from 0 to 64.")
    assert settings(tmp_path, GOOD).gpus == 0
    assert settings(tmp_path, GOOD + "gpus = 2\n").gpus == 2


def test_a_table_is_refused_like_an_unknown_setting(tmp_path: Path) -> None:
    assert "Line 3 sets 'hub'" in refused(tmp_path, GOOD + "[hub]\nseats = 3\n").why


def test_text_that_isn_t_toml_is_a_card(tmp_path: Path) -> None:
    assert "line 1" in refused(tmp_path, "title = my class\n").why
    (tmp_path / "hub.toml").write_bytes(b'\n# \xc3\xb6\ntitle = "\xff"\n')
    with pytest.raises(Card, match=r"can't be used") as raised:
        hub_settings.read(tmp_path)
    assert raised.value.why == "Line 3 has a character that isn't UTF-8."


def test_a_short_password_is_refused_and_not_repeated(tmp_path: Path) -> None:
    card = refused(tmp_path, 'teacher_password = "a-much-longer-word"\npassword = "secret"\n')
    assert "Line 2 sets password." in card.why
    assert "secret" not in card.why


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('teacher_password = "a-much-longer-word"\n', "Neither is set."),
        (GOOD + 'users = "users.csv"\n', "See lines 1 and 3."),
        ('password = "a-long-word"\n', "separate password. None is set."),
        ('password = "a-long-word-here"\nteacher_password = "a-long-word-here"\n', "Line 2: "),
        (GOOD + 'certificate = "hub.pem"\n', "two files"),
        (GOOD + 'certificate = "none.pem"\nkey = "none.pem"\n', "Line 3 names"),
    ],
)
def test_settings_that_don_t_fit_together_are_refused(
    tmp_path: Path, text: str, reason: str
) -> None:
    assert reason in refused(tmp_path, text).why


def test_all_mistakes_are_on_one_card_up_to_a_number(tmp_path: Path) -> None:
    card = refused(tmp_path, f'{GOOD}port = "x"\nseat = 3\naddress = "localhost"\n')
    places = [card.why.index(f"Line {line} sets") for line in (3, 4, 5)]
    assert places == sorted(places)
    assert card.fix == "correct these lines, then: invoke hub"
    wrong = "".join(f"{name} = -1\n" for name in ("seats", "port", "gpus", "cpus", "idle", "key"))
    assert refused(tmp_path, GOOD + wrong).why.endswith(" And 1 more.")
    both = 'teacher_password = "a-much-longer-word"\ncertificate = "hub.pem"\n'
    card = refused(tmp_path, both)
    assert "Neither is set." in card.why and "two files" in card.why


def test_the_password_of_all_isn_t_called_too_short_for_the_teacher(tmp_path: Path) -> None:
    card = refused(tmp_path, 'password = "a-long-word-x"\nteacher_password = "a-long-word-x"\n')
    assert "different" in card.fix and "12" not in card.fix


def test_the_first_start_writes_settings_that_can_be_read(tmp_path: Path) -> None:
    owner = Owner(tmp_path.stat().st_uid, tmp_path.stat().st_gid)
    hub_folder.prepare(tmp_path, owner)
    first = (tmp_path / "hub.toml").read_text(encoding="utf-8")
    hub = hub_settings.read(tmp_path)
    assert hub.password and hub.teacher_password
    assert (tmp_path / "hub.toml").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    hub_folder.prepare(tmp_path, owner)
    assert (tmp_path / "hub.toml").read_text(encoding="utf-8") == first


def test_a_certificate_that_isn_t_text_is_a_card(tmp_path: Path) -> None:
    owner = Owner(tmp_path.stat().st_uid, tmp_path.stat().st_gid)
    hub_folder.prepare(tmp_path, owner)
    (tmp_path / "hub.der").write_bytes(b"\x30\x82\xff")
    hub = settings(tmp_path, GOOD + 'certificate = "hub.der"\nkey = "hub.der"\n')
    with pytest.raises(Card, match=r"hub.der can't be read") as raised:
        hub_folder.describe(tmp_path, hub, ContainerSpec(image="hub"))
    assert "PEM" in raised.value.why


def test_a_key_in_a_closed_folder_is_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> bool:
        raise PermissionError("closed")

    monkeypatch.setattr(Path, "is_file", refuse)  # as for a user who isn't root
    pair = 'certificate = "closed/c.pem"\nkey = "closed/k.pem"\n'
    assert "Line 3 names" in refused(tmp_path, GOOD + pair).why


def users(folder: Path, text: str) -> dict[str, str]:
    path = folder / "users.csv"
    path.write_text(text, encoding="utf-8")
    return read_users(path, "teacher")


def test_a_list_of_learners_may_have_a_header_and_empty_lines(tmp_path: Path) -> None:
    text = '\ufeffname,password\nada,first-word\n\n ben , "a,comma-word" \n'
    with pytest.raises(Card):
        users(tmp_path, text)  # a space before a quote is no CSV
    text = text.replace(' , "', ',"').replace('" ', '"')
    assert users(tmp_path, text) == {"ada": "first-word", "ben": "a,comma-word"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("../etc,long-enough", "isn't possible"),
        ("Ada,long-enough", "isn't possible"),
        ("zoë,long-enough", "isn't possible"),
        ("ada lovelace,long-enough", "isn't possible"),
        ("-ada,long-enough", "isn't possible"),
        (f"{'a' * 33},long-enough", "isn't possible"),
        ("teacher,long-enough", "teacher's name"),
        ("ben,long-enough", "occurs twice"),
        ("ada,short", "fewer than 8"),
        ("ada", "1 column,"),
        ("ada;long-enough", "1 column,"),
        ("ada,long-enough,more", "3 columns"),
    ],
)
def test_a_wrong_line_of_the_list_is_named(tmp_path: Path, line: str, reason: str) -> None:
    with pytest.raises(Card) as raised:
        users(tmp_path, f"name,password\nben,another-word\n{line}\n")
    assert raised.value.why.startswith("Line 3: ")
    assert reason in raised.value.why
    assert "long-enough" not in raised.value.why or "column" not in reason


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("jörg", "joerg"),
        ("jo\u0308rg", "joerg"),
        ("Weiß", "weiss"),
        ("zoë", "zoe"),
        ("anna maria", "anna-maria"),
        ("O’Neil", "oneil"),
        ("ada_l.", "ada-l"),
        ("a" * 33, ""),
        ("李", ""),
    ],
)
def test_a_name_that_isn_t_possible_comes_with_one_that_is(
    tmp_path: Path, name: str, instead: str
) -> None:
    with pytest.raises(Card) as raised:
        users(tmp_path, f"{name},long-enough\n")
    expected = f"; {instead} is possible." if instead else "at most 32 in all."
    assert raised.value.why.endswith(expected)


@pytest.mark.parametrize("header", ["user,password", "Name,Passwort", "username,pw"])
def test_a_header_that_isn_t_the_known_one_is_no_learner(tmp_path: Path, header: str) -> None:
    with pytest.raises(Card) as raised:
        users(tmp_path, f"{header}\nada,long-enough\n")
    assert raised.value.why == "Line 1: it looks like a header: remove it."
    assert users(tmp_path, "user,long-enough\n") == {"user": "long-enough"}


def test_the_known_header_may_have_capitals(tmp_path: Path) -> None:
    text = "Name,Password\nada,long-enough\n"
    assert users(tmp_path, text) == {"ada": "long-enough"}


def test_columns_of_a_german_excel_are_separated_with_the_printed_command(tmp_path: Path) -> None:
    text = "name;password\nada;long;enough\n"
    with pytest.raises(Card, match="can't be used") as raised:
        users(tmp_path, text)
    assert "separated by semicolons" in raised.value.why
    command, _, _ = raised.value.fix.partition("; then")
    subprocess.run(command, shell=True, check=True)
    text = (tmp_path / "users.csv").read_text()
    assert users(tmp_path, text) == {"ada": "long;enough"}


def test_all_wrong_lines_are_on_one_card_up_to_a_number(tmp_path: Path) -> None:
    with pytest.raises(Card) as raised:
        users(tmp_path, "ada\nben,long-enough\ncleo,short\n")
    assert "Line 1: " in raised.value.why and "Line 3: " in raised.value.why
    assert "Line 2" not in raised.value.why
    with pytest.raises(Card) as raised:
        users(tmp_path, "ada\n" * 8)
    assert raised.value.why.endswith("And 3 more.")


def test_a_list_that_others_can_read_is_worth_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "users.csv"
    path.write_text("ada,long-enough\n")
    path.chmod(0o600)
    assert readable_by_others(path) == ""
    path.chmod(0o640)
    assert readable_by_others(path) and not readable_by_others(tmp_path / "none.csv")


def test_a_list_that_is_empty_missing_or_not_utf_8_is_a_card(tmp_path: Path) -> None:
    with pytest.raises(Card, match=r"can't be used"):
        users(tmp_path, "name,password\n")
    with pytest.raises(Card, match=r"There is no .*none\.csv") as raised:
        read_users(tmp_path / "none.csv", "teacher")
    assert raised.value.fix.startswith("create it")
    (tmp_path / "latin.csv").write_bytes("ada,long-enough\nzoë,long-enough".encode("latin-1"))
    with pytest.raises(Card, match=r"can't be read") as raised:
        read_users(tmp_path / "latin.csv", "teacher")
    assert raised.value.why.startswith("Line 2 has a character that isn't UTF-8.")


@pytest.mark.parametrize("name", ["", "..", "a/b", "a.b", "a_b", "A", "a-", "é", "a b", "a\n"])
def test_names_that_could_leave_a_folder_or_an_address_are_not_allowed(name: str) -> None:
    assert not is_allowed(name)
    assert is_allowed("learner-01")
