"""Guesses of passwords: who has to wait, and who doesn't because somebody else guesses."""

from hub.client_address import client_address
from hub.tries import MOST_COUNTED, SECONDS_TO_WAIT, TRIES, Tries

import pytest

HUB = "172.18.0.2"
SEATS = 30


class Clock:
    """A clock that stands still."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tries(clock: Clock) -> Tries:
    return Tries(TRIES * SEATS, clock)


def test_a_name_waits_after_some_wrong_passwords_and_no_other_does(
    tries: Tries, clock: Clock
) -> None:
    for _ in range(TRIES):
        assert tries.seconds_to_wait("room", "ada", False) == 0
        tries.add_wrong("room", "ada", False)
    assert 0 < tries.seconds_to_wait("room", "ada", False) <= SECONDS_TO_WAIT
    assert tries.seconds_to_wait("room", "ben", False) == 0
    assert tries.seconds_to_wait("home", "ada", False) == 0
    clock.now += SECONDS_TO_WAIT + 1
    assert tries.seconds_to_wait("room", "ada", False) == 0


def test_the_right_password_starts_to_count_again(tries: Tries) -> None:
    for _ in range(TRIES - 1):
        tries.add_wrong("room", "ada", False)
    tries.forget("room", "ada")
    tries.add_wrong("room", "ada", False)
    assert tries.seconds_to_wait("room", "ada", False) == 0


def test_a_shared_password_can_t_be_guessed_under_many_names(tries: Tries) -> None:
    guesses = 0
    while guesses < 10_000 and not tries.seconds_to_wait("eve", f"a{guesses}", False):
        tries.add_wrong("eve", f"a{guesses}", False)
        guesses += 1
    assert guesses == TRIES * SEATS
    assert tries.seconds_to_wait("room", "ada", False) == 0


def test_a_class_behind_one_address_may_mistype(tries: Tries) -> None:
    for learner in range(SEATS):
        for _ in range(TRIES - 1):
            tries.add_wrong("school", f"learner{learner}", False)
    assert all(tries.seconds_to_wait("school", f"learner{n}", False) == 0 for n in range(SEATS))


def test_nobody_else_locks_the_teacher_out(tries: Tries) -> None:
    for guess in range(TRIES * SEATS):
        tries.add_wrong("school", f"a{guess}", False)
        tries.add_wrong("eve", "teacher", True)
    assert tries.seconds_to_wait("school", "ada", False) > 0
    assert tries.seconds_to_wait("school", "teacher", True) == 0
    assert tries.seconds_to_wait("eve", "teacher", True) > 0
    assert tries.seconds_to_wait("eve", "ada", False) == 0


def test_a_flood_from_many_addresses_takes_little_memory(tries: Tries) -> None:
    for guess in range(2 * MOST_COUNTED):
        tries.add_wrong(f"address {guess}", f"a{guess}", False)
    assert len(tries.wrong) == MOST_COUNTED
    last = 2 * MOST_COUNTED - 1
    assert (f"address {last}", f"a{last}") in tries.wrong


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        (HUB, "192.0.2.7", "192.0.2.7"),
        (HUB, "198.51.100.1, 203.0.113.5,192.0.2.7", "192.0.2.7"),
        (HUB, "::ffff:192.0.2.7", "192.0.2.7"),
        (HUB, "2001:db8:0:1:aaaa::1", "2001:db8:0:1::/64"),
        (HUB, "::1", "::/64"),
        (HUB, "", HUB),
        (HUB, "nonsense", "nonsense"),
        ("198.18.0.3", "192.0.2.7", "198.18.0.3"),  # a seat, which writes the header itself
        ("198.18.0.3", "", "198.18.0.3"),
    ],
)
def test_only_the_proxy_s_own_entry_is_the_client_s_address(
    peer: str, forwarded: str, address: str
) -> None:
    assert client_address(peer, HUB, forwarded) == address
