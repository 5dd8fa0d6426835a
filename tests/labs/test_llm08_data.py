"""LLM08 reads instruction data: three file formats, three shapes, and bad rows by their place."""

import argparse
import json
import os
import subprocess
import tracemalloc
from pathlib import Path
from typing import Any

from common.options import Settings
from labs.kit import Card
from labs.llm08_training import names_of, parquet_rows, readers
from labs.llm08_training.conversations import (
    Conversations,
    check_first_rows,
    messages_of,
    requested,
)
from labs.llm08_training.readers import BadRow

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

USER = {"role": "user", "content": "Hi"}
ASSISTANT = {"role": "assistant", "content": "Hello"}
TALK = [USER, ASSISTANT]


def write(path: Path, *lines: str | bytes) -> str:
    encoded = [line if isinstance(line, bytes) else line.encode() for line in lines]
    path.write_bytes(b"\n".join(encoded))
    return str(path)


def answers(read: Conversations) -> list[str]:
    return [row["messages"][-1]["content"] for row in read]


# Shapes.


@pytest.mark.parametrize(
    "row",
    [
        {"messages": TALK},
        {"messages": json.dumps(TALK)},
        {"prompt": "Hi", "completion": "Hello"},
        {"prompt": [USER], "completion": [ASSISTANT]},
        {"instruction": "Hi", "output": "Hello"},
        {"instruction": "Hi", "input": "", "output": "Hello"},
        {"instruction": "Hi", "input": None, "output": "Hello", "source": 7},
        {"messages": None, "instruction": "Hi", "output": "Hello"},
    ],
)
def test_every_shape_becomes_the_same_messages(row: dict[str, Any]) -> None:
    assert messages_of(row) == TALK


def test_an_input_follows_its_instruction_after_a_blank_line() -> None:
    row = {"instruction": "Reverse", "input": "a b", "output": "b a"}
    assert messages_of(row)[0] == {"role": "user", "content": "Reverse\n\na b"}


def test_a_context_follows_its_request_after_a_blank_line() -> None:
    row = {"instruction": "Reverse", "context": "a b", "response": "b a", "category": "x"}
    assert messages_of(row)[0] == {"role": "user", "content": "Reverse\n\na b"}


def test_other_fields_of_a_message_are_dropped() -> None:
    assert messages_of({"messages": [{**USER, "name": "Ann"}, ASSISTANT]}) == TALK


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (None, "got a NoneType"),
        ([1], "got a list"),
        ("text", "got a str"),
        ({}, "it has nothing"),
        ({"text": "x"}, "it has text; wanted: messages"),
        ({"instruction": "Hi", "output": None}, "output is missing"),
        ({"instruction": None, "output": "x"}, "instruction is missing"),
        ({"instruction": "Hi", "output": 7}, "output is not text: 7"),
        ({"instruction": "Hi", "input": ["a"], "output": "x"}, "input is not text"),
        ({"question": "Hi", "context": 7, "answer": "x"}, "context is not text: 7"),
        ({"prompt": "Hi", "completion": ""}, "no text by the assistant"),
        ({"prompt": "Hi", "completion": "\ud800"}, "completion isn't valid UTF-8"),
        ({"prompt": [USER], "completion": "Hello"}, "prompt is not text"),
        ({"messages": []}, "no text by the assistant"),
        ({"messages": [USER]}, "no text by the assistant"),
        ({"messages": "Hi"}, "messages is text and not JSON"),
        ({"messages": {"role": "user"}}, "messages must be a list"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "needs a role"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "needs a role"),
        ({"messages": ["Hi"]}, "needs a role"),
        ({"messages": [{"role": "user"}, ASSISTANT]}, "user's content is missing"),
    ],
)
def test_a_row_that_is_not_a_conversation_is_refused_with_the_reason(row: Any, why: str) -> None:
    with pytest.raises(BadRow, match=why):
        messages_of(row)


# Files.


def test_jsonl_may_have_blank_lines_a_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    good = json.dumps({"messages": TALK}).encode()
    path = write(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + good + b"\r", b"", b"  ", good)
    assert answers(Conversations(path)) == ["Hello", "Hello"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"prompt": "Hi"', "it isn't JSON"),
        (b'{"prompt": "Hi", "completion": "\xff"}', "it isn't valid UTF-8"),
        (b"[" * 100_000, "it isn't JSON"),
        (b"NaN", "got a float"),
        (b'["Hi", "Hello"]', "got a list"),
    ],
)
def test_a_bad_line_is_reported_with_its_number(tmp_path: Path, line: bytes, why: str) -> None:
    good = json.dumps({"messages": TALK})
    path = write(tmp_path / "a.jsonl", good, "", line, good)
    read = Conversations(path, skip=True)
    assert answers(read) == ["Hello", "Hello"]
    assert read.skipped == 1
    assert read.reported[0].startswith(f"{path}, line 3: ")
    assert why in read.reported[0]
    with pytest.raises(Card) as stopped:
        list(Conversations(path))
    assert f"{path}, line 3" in stopped.value.why
    assert "--bad-rows skip" in stopped.value.why + stopped.value.fix


@pytest.mark.parametrize("skip", [True, False])
def test_a_row_that_the_caller_refuses_is_a_bad_row_with_its_place(
    tmp_path: Path, skip: bool
) -> None:
    def refuse(messages: list[dict[str, str]]) -> None:
        if "<|" in messages[0]["content"]:
            raise BadRow("it holds a mark")

    rows = [json.dumps({"prompt": text, "completion": text}) for text in ("a", "<|b", "c")]
    path = write(tmp_path / "a.jsonl", *rows)
    read = Conversations(path, skip=skip, refuse=refuse)
    if skip:
        assert answers(read) == ["a", "c"]
        assert read.reported == [f"{path}, line 2: it holds a mark"]
    else:
        with pytest.raises(Card) as stopped:
            answers(read)
        assert stopped.value.why == f"{path}, line 2: it holds a mark"


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_csv_file_may_have_semicolons_or_tabs(tmp_path: Path, separator: str) -> None:
    lines = [separator.join(row) for row in (("question", "answer"), ('"a, b"', "c, d"))]
    assert answers(Conversations(write(tmp_path / "a.csv", *lines))) == ["c, d"]


@pytest.mark.parametrize(
    ("columns", "fix"),
    [
        (None, "--columns 'Customer question,Our reply'"),
        (("customer Question", "our reply"), "--columns 'Customer question,Our reply'"),
        (("our reply", "Channel"), "--columns 'Our reply,Channel'"),
    ],
)
def test_unknown_columns_are_a_card_with_the_option_that_names_them(
    tmp_path: Path, columns: tuple[str, str] | None, fix: str
) -> None:
    path = write(tmp_path / "a.csv", "Customer question,Our reply,Channel", "Hi there,Hello,web")
    with pytest.raises(Card, match="columns aren't known") as stopped:
        list(Conversations(path, columns=columns))
    assert stopped.value.fix == fix
    assert "Customer question, Our reply, Channel" in stopped.value.why


def test_the_option_names_the_columns_with_the_longest_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id,ticket,said", "17,Is it new?,Yes.")
    with pytest.raises(Card) as stopped:
        list(Conversations(path))
    assert stopped.value.fix == "--columns ticket,said"


def test_a_row_with_other_names_after_a_good_one_is_a_bad_row(tmp_path: Path) -> None:
    good = json.dumps({"prompt": "Hi", "completion": "Hello"})
    path = write(tmp_path / "a.jsonl", good, '{"a": "Hi", "b": "Hello"}')
    with pytest.raises(Card, match="A row of the dataset is bad") as stopped:
        list(Conversations(path))
    assert stopped.value.fix == "correct the row; or add --bad-rows skip"


def test_an_empty_cell_is_named_by_its_column(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "Q,A", "Hi,Hello", "Hi,")
    with pytest.raises(Card) as stopped:
        list(Conversations(path, columns=("Q", "A")))
    why = "line 3: its column 'A' is empty, so there is nothing to learn"
    assert stopped.value.why == f"{path}, {why}"


def test_a_file_in_utf_16_is_a_card_with_the_command_that_converts_it(tmp_path: Path) -> None:
    path = write(tmp_path / "my file.csv", "question,answer\nHi,Hello".encode("utf-16"))
    with pytest.raises(Card, match="is in UTF-16") as stopped:
        Conversations(path)
    assert subprocess.run(stopped.value.fix, shell=True, check=True).returncode == 0
    assert answers(Conversations(str(tmp_path / "utf8-my file.csv"))) == ["Hello"]


@pytest.mark.parametrize("lines", [("Größe,answer", "Hi,Hello"), ("prompt,answer", "Hi,Grüße")])
def test_a_file_in_windows_1252_is_a_card_with_the_command_that_converts_it(
    tmp_path: Path, lines: tuple[str, str]
) -> None:
    path = write(tmp_path / "my file.csv", *(line.encode("cp1252") for line in lines))
    columns = (lines[0].split(",")[0], "answer")
    with pytest.raises(Card, match="isn't in UTF-8") as stopped:
        list(Conversations(path, columns=columns))
    assert "choose “CSV UTF-8”" in stopped.value.why
    assert subprocess.run(stopped.value.fix, shell=True, check=True).returncode == 0
    converted = Conversations(str(tmp_path / "utf8-my file.csv"), columns=columns)
    assert answers(converted) == [lines[1].split(",")[1]]


def test_half_a_surrogate_in_json_is_no_matter_of_the_files_encoding(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"prompt": "Hi", "completion": "\\ud800"}')
    with pytest.raises(Card, match="A row of the dataset is bad"):
        list(Conversations(path))


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("ticket", "ticket,said"),
        ("said", "ticket,said"),
        ("Ticket,", "ticket,said"),
        ("id,id", "id,ticket"),
        ("id,ticket,said", "ticket,said"),
        ("", "ticket,said"),
    ],
)
def test_columns_that_are_not_two_names_are_a_card_with_two_of_the_file(
    tmp_path: Path, text: str, fix: str
) -> None:
    path = write(tmp_path / "a.csv", "id,ticket,said", "17,Is it really new?,Yes it is.")
    options = argparse.Namespace(dataset=path, bad_rows="stop", columns=names_of(text))
    with pytest.raises(Card, match="isn't two names") as stopped:
        check_first_rows(Settings(own=options))
    assert stopped.value.fix == f"--columns {fix}"
    assert "The data has id, ticket, said." in stopped.value.why


def test_a_misspelt_file_is_a_card_with_the_nearest_name(tmp_path: Path) -> None:
    right = write(tmp_path / "support.csv", "question,answer")
    with pytest.raises(Card, match="There is no") as stopped:
        Conversations(str(tmp_path / "support2.csv"))
    assert stopped.value.fix == f"--dataset {right}"
    with pytest.raises(Card, match="There is no") as stopped:
        Conversations("support2.csv")
    assert stopped.value.fix == "put it into work/: work/support2.csv"


def test_a_csv_row_over_several_lines_has_the_number_of_its_first_line(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv",
        "prompt,completion",
        '"two',
        'lines",yes',
        "",
        "too,many,fields",
        'a,"b"c',
        b"na\xefve,yes",
        '"long","' + 200_000 * "x" + '"',
        "last,one",
    )
    read = Conversations(path, skip=True)
    assert [len(text) for text in answers(read)] == [3, 200_000, 3]
    places = [line.removeprefix(f"{path}, ").split(":")[0] for line in read.reported]
    assert places == ["line 5", "line 6", "line 7"]


def test_a_quote_that_never_closes_is_reported_where_it_opens(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "prompt,completion", "Hi,Hello", '"open,oh', "x,y")
    read = Conversations(path, skip=True)
    assert answers(read) == ["Hello"]
    assert read.reported[0].startswith(f"{path}, line 3: it isn't CSV")


def test_parquet_rows_are_numbered_across_row_groups(tmp_path: Path) -> None:
    rows = [{"prompt": "Hi", "completion": str(i), "more": i} for i in range(5000)]
    rows[4321]["completion"] = None
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet", batch_size=1000)
    read = Conversations(str(tmp_path / "a.parquet"), skip=True)
    assert len(answers(read)) == 4999
    assert read.reported == [f"{tmp_path / 'a.parquet'}, row 4322: completion is missing"]


def test_a_parquet_text_that_is_not_utf8_spoils_only_its_row(tmp_path: Path) -> None:
    ends = pa.array([0, 2, 3, 5], pa.int32()).buffers()[1]
    texts = pa.Array.from_buffers(pa.string(), 3, [None, ends, pa.py_buffer(b"Hi\xffYo")])
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"prompt": texts, "completion": ["x", "y", "z"]}), path)
    read = Conversations(str(path), skip=True)
    assert answers(read) == ["x", "z"]
    assert read.reported == [f"{path}, row 2: it isn't valid UTF-8"]


def test_messages_in_parquet_are_the_same_as_in_jsonl(tmp_path: Path) -> None:
    datasets.Dataset.from_list([{"messages": TALK}]).to_parquet(tmp_path / "a.parquet")
    assert list(Conversations(str(tmp_path / "a.parquet"))) == [{"messages": TALK}]


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"prompt": "Hi", "response": "Hello"}, None),
        ({"instruction": "Hi", "context": "", "response": "Hello", "category": "chat"}, None),
        ({"Question ": "Hi", "ANSWER": "Hello"}, None),
        ({"input": "x", "question": "Hi", "answer": "Hello"}, ("question", "answer")),
        (
            {"prompt": "x", "completion": "y", "Frage": "Hi", "Antwort": "Hello"},
            ("Frage", "Antwort"),
        ),
    ],
)
def test_parquet_has_all_columns_that_csv_has(
    tmp_path: Path, row: dict[str, str], columns: tuple[str, str] | None
) -> None:
    datasets.Dataset.from_list([row]).to_parquet(tmp_path / "a.parquet")
    write(tmp_path / "a.csv", ",".join(row), ",".join(row.values()))
    for name in ("a.parquet", "a.csv"):
        read = Conversations(str(tmp_path / name), columns=columns)
        assert list(read) == [{"messages": TALK}], name


def test_a_parquet_row_without_a_response_is_reported_with_all_its_columns(tmp_path: Path) -> None:
    row = {"prompt": "Hi", "source": "a forum"}
    datasets.Dataset.from_list([row]).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(Card) as stopped:
        list(Conversations(str(tmp_path / "a.parquet")))
    assert "it has prompt, source; wanted" in stopped.value.why


def test_a_file_that_is_not_parquet_in_spite_of_its_name_is_reported(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", "not Parquet")
    with pytest.raises(Card) as stopped:
        list(Conversations(path))
    assert "row 1: it can't be read" in stopped.value.why


def test_a_folder_is_read_file_by_file_and_each_loop_reads_it_again(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    write(tmp_path / "b" / "1.jsonl", json.dumps({"prompt": "", "completion": "second"}))
    write(tmp_path / "a.csv", "instruction,output", "x,first", "y,")
    write(tmp_path / "notes.txt", "no data")
    read = Conversations(str(tmp_path), skip=True)
    for _ in range(2):
        assert answers(read) == ["first", "second"]
        assert read.skipped == 1


def test_only_the_first_bad_rows_are_reported_and_all_are_counted(tmp_path: Path) -> None:
    good = json.dumps({"messages": TALK})
    read = Conversations(write(tmp_path / "a.jsonl", *["x"] * 500, good), skip=True)
    assert answers(read) == ["Hello"]
    assert read.skipped == 500
    assert len(read.reported) == 10


# Hostile data: it ends in a bad row, with memory to spare.


@pytest.fixture
def low_limit(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(readers, "LARGEST_ROW", 10_000)
    return 10_000


def test_a_line_that_is_too_long_is_skipped_without_being_kept(
    tmp_path: Path, low_limit: int
) -> None:
    good = json.dumps({"messages": TALK})
    for long in (low_limit - 1, low_limit, 5 * low_limit, 5 * low_limit - 1):
        path = write(tmp_path / "a.jsonl", good, "x" * long, good)
        read = Conversations(path, skip=True)
        assert answers(read) == ["Hello", "Hello"]
        assert read.reported == [f"{path}, line 2: it has more than 8 MB"]


def test_a_file_without_a_line_end_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.truncate(2**28)  # a sparse file
    read = Conversations(str(path), skip=True)
    tracemalloc.start()
    try:
        with pytest.raises(Card, match="has no conversation"):
            list(read)
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()
    assert "line 1: it has more than 8 MB" in read.reported[0]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"prompt": "a", "prompt": "b", "completion": "c"}', "the name 'prompt' occurs twice"),
        ('{"messages": [{"role": "user", "role": "system"}]}', "the name 'role' occurs twice"),
        ('{"a":' * 100_000, "it isn't JSON"),
        (f'{{"prompt": {"9" * 100_000}, "completion": "b"}}', "it isn't JSON"),
        ('{"prompt": 1e999, "completion": "b"}', "prompt is not text: inf"),
    ],
)
def test_an_ambiguous_or_absurd_row_is_bad(tmp_path: Path, line: str, why: str) -> None:
    good = json.dumps({"messages": TALK})
    read = Conversations(write(tmp_path / "a.jsonl", line, good), skip=True)
    assert answers(read) == ["Hello"]
    assert why in read.reported[0]


@pytest.mark.parametrize("row", ["x" * 20_000, '"' + "x\n" * 20_000, '"' + "x" * 20_000 + '",b'])
@pytest.mark.usefixtures("low_limit")
def test_a_csv_row_that_is_too_long_ends_the_file(tmp_path: Path, row: str) -> None:
    path = write(tmp_path / "a.csv", "prompt,completion", "Hi,Hello", row)
    read = Conversations(path, skip=True)
    assert answers(read) == ["Hello"]
    assert read.reported == [f"{path}, line 3: it has more than 8 MB"]


def test_a_small_parquet_file_that_unpacks_to_gigabytes_is_bad(tmp_path: Path) -> None:
    """One text of 5 MB, stored once, is the value of every row."""
    path = tmp_path / "a.parquet"
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int8()), ["x" * 5_000_000])
    table = pa.table({"prompt": texts.cast(pa.dictionary(pa.int8(), pa.string()))})
    table = table.append_column("completion", pa.array(["y"] * 2000))
    parquet.write_table(table, path, compression="zstd")
    assert path.stat().st_size < 100_000
    with pytest.raises(Card) as stopped:
        list(Conversations(str(path)))
    assert "takes more than 1 GiB of memory" in stopped.value.why


def test_a_parquet_file_with_too_many_rows_is_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "a.parquet")
    parquet.write_table(pa.table({"prompt": ["a"] * 11, "completion": ["b"] * 11}), path)
    assert [set(row) for row in parquet_rows.rows(path)] == [{"row"}] * 11
    monkeypatch.setattr(parquet_rows, "MOST_ROWS", 10)
    assert list(parquet_rows.rows(path)) == [{"bad": "the file has 11 rows"}]


def test_dates_and_bytes_in_parquet_are_not_text(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"prompt": [b"Hi"], "completion": ["Hello"]})
    parquet.write_table(table, path)
    read = Conversations(str(path), skip=True)
    with pytest.raises(Card, match="has no conversation"):
        list(read)
    assert "prompt is not text: {'bytes'" in read.reported[0]


def test_a_reading_that_is_given_up_ends_its_process(tmp_path: Path) -> None:
    rows = [{"prompt": "Hi", "completion": str(i)} for i in range(50_000)]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    reading = iter(Conversations(str(tmp_path / "a.parquet")))
    assert next(reading)
    reading.close()  # type: ignore[attr-defined]
    left = [one for one in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path) in _text(one)]
    assert left == []


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def test_a_link_to_a_file_elsewhere_is_a_card(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.jsonl", json.dumps({"messages": TALK}))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.jsonl").symlink_to(secret)
    with pytest.raises(Card, match="is a link to a file outside of its folder") as stopped:
        Conversations(str(tmp_path / "set"))
    assert stopped.value.why == f"It leads to {secret}."
    assert stopped.value.code == 2
    (tmp_path / "set" / "a.jsonl").unlink()
    write(tmp_path / "set" / "b.jsonl", json.dumps({"messages": TALK}))
    (tmp_path / "set" / "c.jsonl").symlink_to("b.jsonl")
    assert answers(Conversations(str(tmp_path / "set"))) == ["Hello", "Hello"]


# Unavailable data.


@pytest.mark.parametrize(
    ("make", "what", "why"),
    [
        (lambda at: at / "none.jsonl", "There is no", "no file of a similar name"),
        (lambda at: at / "no" / "none.jsonl", "There is no", "work/"),
        (lambda at: at, "has no data", ".parquet"),
        (lambda _: "owner/name", "the hub is off", "--online"),
        (lambda at: write(at / "a.txt", "x"), "has an unknown format", ".csv"),
    ],
)
def test_a_dataset_that_does_not_exist_is_a_card(
    tmp_path: Path, make: Any, what: str, why: str
) -> None:
    with pytest.raises(Card) as stopped:
        Conversations(str(make(tmp_path)))
    assert what in stopped.value.what
    assert why in stopped.value.why
    assert stopped.value.code == 2


def test_a_file_without_read_permission_is_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps({"messages": TALK}))
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read every file
    with pytest.raises(Card, match="can't be read") as stopped:
        Conversations(path)
    assert stopped.value.fix == f"chmod a+r {path}"


@pytest.mark.parametrize("lines", [[], ["{"], ["", ""]])
def test_a_dataset_without_a_good_row_is_a_card(tmp_path: Path, lines: list[str]) -> None:
    with pytest.raises(Card, match="has no conversation"):
        list(Conversations(write(tmp_path / "a.jsonl", *lines), skip=True))


def test_a_hub_that_cannot_be_reached_is_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route\nto the host")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(Card) as stopped:
        list(Conversations("owner/name", online=True))
    assert stopped.value.why == "no route"
    assert "leave out --dataset" in stopped.value.fix


def test_a_hub_set_is_streamed_and_its_rows_are_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: dict[str, Any] = {}

    def load_dataset(name: str, **options: Any) -> list[dict[str, Any]]:
        arguments.update(options, name=name)
        return [{"messages": TALK}, {"messages": None, "text": ""}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    read = Conversations("owner/name", online=True, skip=True)
    assert answers(read) == ["Hello"]
    assert read.reported[0].startswith("owner/name, row 2: ")
    assert arguments == {"name": "owner/name", "split": "train", "streaming": True}


def settings(dataset: str | None, bad_rows: str = "stop") -> Settings:
    own = argparse.Namespace(dataset=dataset, bad_rows=bad_rows, columns=None)
    return Settings(own=own)


def test_a_run_reads_the_data_that_its_options_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", "x", json.dumps({"messages": TALK}))
    assert requested(settings(None)) is None
    for how, skips in (("stop", False), ("skip", True)):
        read = requested(settings(path, how))
        assert read is not None and read.skip == skips


def test_a_bad_row_among_the_first_thousand_is_reported_before_a_lab_starts(tmp_path: Path) -> None:
    good = json.dumps({"messages": TALK})
    check_first_rows(settings(None))
    check_first_rows(settings(write(tmp_path / "late.jsonl", *[good] * 1000, "x")))
    early = write(tmp_path / "early.jsonl", *[good] * 999, "x")
    check_first_rows(settings(early, "skip"))
    with pytest.raises(Card) as stopped:
        check_first_rows(settings(early))
    assert "line 1000" in stopped.value.why
