"""Tasks from rows and files: what is read, what is refused and how, and splits that can't overlap."""

import datetime
import json
import os
import subprocess
import sys
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs import InputError, Message, Task, ToolCall, tasks
from envs.types import content_id

ASK = {"prompt": "What is 2 + 2?", "answer": "4"}
RFT = {
    "messages": [
        {"role": "developer", "content": "Be brief.", "name": None},
        {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "2 + 2?"}]},
    ],
    "tools": [],
    "parallel_tool_calls": True,
    "reference_answer": "4",
}


@pytest.fixture
def jsonl(tmp_path):
    def write(*lines):
        path = tmp_path / "train.jsonl"
        path.write_bytes("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines).encode())
        return path

    return write


def test_a_prompt_is_a_question_and_the_row_is_the_item(jsonl):
    (task,) = tasks.load(jsonl(ASK))
    assert task.prompt == (Message(role="user", content="What is 2 + 2?"),)
    assert task.item == ASK
    assert task.files == {}


def test_a_row_of_hosted_fine_tuning_is_a_task(jsonl):
    (task,) = tasks.load(jsonl(RFT))
    assert task.prompt == (
        Message(role="system", content="Be brief."),
        Message(role="user", content="What is 2 + 2?"),
    )
    assert task.item == RFT


def test_messages_may_hold_calls_and_their_results():
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    row = {
        "messages": [
            {"role": "user", "content": "Go on."},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "4"},
        ]
    }
    assert tasks.from_row(row, "here").prompt == (
        Message(role="user", content="Go on."),
        Message(role="assistant", tool_calls=(ToolCall(id="c1", name="add", arguments="{}"),)),
        Message(role="tool", tool_call_id="c1", content="4"),
    )


def test_the_prompt_may_be_messages_and_lie_in_another_column():
    row = {"question": [{"role": "user", "content": "Why?"}]}
    assert tasks.from_row(row, "here", prompt="question").prompt == (Message(role="user", content="Why?"),)


def test_a_system_message_goes_where_there_is_none():
    assert [m.role for m in tasks.from_row(ASK, "here", system="Think.").prompt] == ["system", "user"]
    assert tasks.from_row(RFT, "here", system="Think.").prompt[0].content == "Be brief."


def test_files_are_what_the_environment_starts_with():
    task = tasks.from_row(ASK | {"files": {"a.py": "x = 1"}}, "here")
    assert task.files == {"a.py": "x = 1"}


def test_an_id_is_the_rows_own_or_a_hash_of_the_row():
    assert tasks.from_row(ASK | {"id": "q1"}, "here").id == "q1"
    assert tasks.from_row(ASK | {"id": 7}, "here").id == "7"
    hashed = tasks.from_row(ASK, "here").id
    assert len(hashed) == 16 and hashed == tasks.from_row(dict(reversed(ASK.items())), "elsewhere").id
    others = [ASK | {"answer": "5"}, ASK | {"prompt": "?"}, ASK | {"files": {"a": "b"}}]
    assert len({hashed, *(tasks.from_row(row, "here").id for row in others)}) == 4


def test_blank_lines_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(ASK).encode() + b"\r\n\r\n" + b'{"prompt": "\xe2\x80\xa8?"}\r\n')
    assert [task.prompt[0].content for task in tasks.load(path)] == ["What is 2 + 2?", "\u2028?"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt": "a"', r"not JSON \("),
        ('{"prompt": NaN}', "not JSON .NaN is no JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "expected an object, found list"),
        ('"text"', "expected an object, found str"),
        ("{}", "no prompt; a row needs 'messages' or 'prompt', this one has nothing"),
        ('{"question": "a"}', "no prompt.* this one has question"),
        ('{"prompt": null, "messages": null}', "no prompt"),
        ('{"prompt": "  "}', "prompt is empty"),
        ('{"prompt": []}', "prompt: List should have at least 1 item"),
        ('{"prompt": 3}', "prompt: Input should be a valid list"),
        ('{"prompt": "a", "answer": "\\ud800"}', "not JSON .*surrogates"),
        ('{"messages": [{"role": "robot", "content": "a"}]}', "messages: 0.role: Input should be 'developer'"),
        ('{"messages": [{"content": "a"}]}', "messages: 0.role: Field required"),
        ('{"messages": [{"role": "user", "content": 3}]}', "messages: 0.content"),
        ('{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}', "'text'"),
        (
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}',
            "ends with the assis",
        ),
        ('{"prompt": "a", "id": ""}', "id: .*at least 1 character"),
        ('{"prompt": "a", "id": true}', "id: "),
        ('{"prompt": "a", "id": ["x"]}', "id: "),
        ('{"prompt": "a", "files": {"a.py": 1}}', "files: a.py: Input should be a valid string"),
        ('{"prompt": "a", "files": ["a.py"]}', "files: Input should be a valid dictionary"),
    ],
)
def test_a_line_that_is_no_task_is_named_with_its_file(jsonl, line, said):
    path = jsonl(ASK, "", line)
    with pytest.raises(InputError, match=said) as error:
        tasks.load(path)
    assert str(error.value).startswith(f"{path}, line 3: ")
    assert "\n" not in str(error.value)


def test_a_line_that_is_not_utf8_is_named(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"prompt": "a"}\n{"prompt": "\xff"}\n')
    with pytest.raises(InputError, match="line 2: not JSON"):
        tasks.load(path)


def test_two_rows_with_one_id_are_refused_and_both_named(jsonl):
    path = jsonl(ASK | {"id": "q"}, {"prompt": "b"}, {"prompt": "c", "id": "q"})
    with pytest.raises(InputError, match=r"line 3 has the id 'q' of .*line 1; remove one"):
        tasks.load(path)


def test_the_same_row_twice_is_refused(jsonl):
    with pytest.raises(InputError, match=r"line 2 is the same task as .*line 1"):
        tasks.load(jsonl(ASK, ASK))


def test_a_file_that_can_not_be_used_is_named(tmp_path, jsonl):
    with pytest.raises(InputError, match=r"missing\.jsonl: No such file"):
        tasks.load(tmp_path / "missing.jsonl")
    with pytest.raises(InputError, match=r"missing\.parquet: No such file"):
        tasks.load(tmp_path / "missing.parquet")
    with pytest.raises(InputError, match="holds no tasks"):
        tasks.load(jsonl(""))
    with pytest.raises(InputError, match=r"\.jsonl or \.parquet files, or from hub:owner/name"):
        tasks.load("train.csv")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(InputError, match="Is a directory"):
        tasks.load(tmp_path / "folder.jsonl")


def test_parquet_holds_the_same_tasks_as_jsonl(tmp_path, jsonl):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"id": "a", "prompt": "What?", "answer": 4}, {"id": "b", "prompt": "Why?", "answer": 5}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    assert tasks.load(tmp_path / "t.parquet") == tasks.load(jsonl(*rows))
    talks = [{"messages": [{"role": "user", "content": "What?"}], "when": datetime.datetime(2026, 1, 2)}]
    parquet.write_table(pa.Table.from_pylist(talks), tmp_path / "talk.parquet")
    (task,) = tasks.load(tmp_path / "talk.parquet")
    assert task.prompt == (Message(role="user", content="What?"),)


def test_a_parquet_file_that_is_none_and_a_row_that_is_no_task_are_named(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (tmp_path / "t.parquet").write_text("prompt\n")
    with pytest.raises(InputError, match="not a parquet file"):
        tasks.load(tmp_path / "t.parquet")
    parquet.write_table(pa.Table.from_pylist([{"prompt": "a"}, {"prompt": None}]), tmp_path / "u.parquet")
    with pytest.raises(InputError, match=r"u\.parquet, row 2: no prompt"):
        tasks.load(tmp_path / "u.parquet")


def test_a_library_that_is_not_installed_is_named_with_the_command(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match="pip install pyarrow"):
        tasks.load(tmp_path / "t.parquet")
    with pytest.raises(InputError, match="pip install datasets"):
        tasks.load("hub:owner/name")


def test_reading_jsonl_loads_no_heavy_library():
    code = "import sys, envs.tasks; print([m for m in ('pyarrow', 'datasets', 'numpy', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout == "[]\n"


@pytest.mark.slow
def test_a_data_set_is_read_by_split_and_column(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "test.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    (task,) = tasks.load(f"hub:{tmp_path / 'data'}", split="test", prompt="question")
    assert (task.prompt[0].content, task.item["answer"]) == ("a", "b")
    with pytest.raises(InputError, match="split 'train': can't be loaded"):
        tasks.load(f"hub:{tmp_path / 'data'}", split="train")


def test_an_id_is_the_same_in_every_process():
    code = """
from envs import Task
print(Task.ask("What?", system="s", b={"y": 1.5, "x": [None, True]}, a="ä\\ud800").id)
"""
    runs = (
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    )
    here = Task.ask("What?", system="s", a="ä\ud800", b={"x": [None, True], "y": 1.5}).id
    assert set(runs) == {f"{here}\n"}


def test_a_hash_needs_content_that_lasts():
    prompt = (Message(role="user", content="a"),)
    dated = content_id(prompt, {"at": datetime.date(2026, 1, 2), "price": Decimal("1.5"), "raw": b"\x00"})
    assert len(dated) == 16
    for item in ({"x": {1, 2}}, {"x": object()}, {"x": {1: 2, "a": 3}}):
        with pytest.raises(InputError, match="give the id"):
            content_id(prompt, item)


def test_who_said_what_is_part_of_the_hash():
    user, system = Message(role="user", content="a"), Message(role="system", content="a")
    called = Message(role="user", content="a", tool_calls=(ToolCall(id="1", name="x", arguments=""),))
    assert len({content_id((m,), {}) for m in (user, system, called)}) == 3


MANY = [Task.ask(f"Question {n}?") for n in range(2000)]
SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def test_a_split_gets_its_share_and_no_task_is_lost_or_twice():
    parts = tasks.split(MANY, SHARES)
    assert sorted(t.id for part in parts.values() for t in part) == sorted(t.id for t in MANY)
    assert {name: round(len(part) / len(MANY), 1) for name, part in parts.items()} == SHARES
    tasks.check_disjoint(parts)


def test_a_task_stays_in_its_split_whatever_else_there_is():
    whole = tasks.split(MANY, SHARES)["test"]
    assert [t for t in tasks.split(MANY[:500], SHARES)["test"] if t not in whole] == []


def test_an_empty_split_is_there():
    assert tasks.split(MANY[:3], {"train": 1.0, "test": 0.0})["test"] == []


@pytest.mark.parametrize("shares", [{}, {"a": 0.5}, {"a": 1.5, "b": -0.5}, {"a": float("nan")}])
def test_shares_that_are_no_shares_are_refused(shares):
    with pytest.raises(InputError, match="sum to 1"):
        tasks.split_of("a", shares)


@given(st.text(min_size=1), st.lists(st.integers(0, 100), min_size=1).filter(any))
def test_every_id_is_in_exactly_one_split_that_has_a_share(id, weights):
    shares = {str(n): weight / sum(weights) for n, weight in enumerate(weights)}
    assert shares[tasks.split_of(id, shares)] > 0


def test_splits_that_share_a_task_are_refused_by_id_and_by_prompt():
    a, b = Task.ask("a", id="1"), Task.ask("b", id="2")
    tasks.check_disjoint({"train": [a], "test": [b]})
    with pytest.raises(InputError, match="'1' of test is also in train"):
        tasks.check_disjoint({"train": [a], "test": [Task.ask("c", id="1")]})
    with pytest.raises(InputError, match=r"'3' of test is also in train \(as '1'\)"):
        tasks.check_disjoint({"train": [a], "test": [b, Task.ask("a", id="3")]})
