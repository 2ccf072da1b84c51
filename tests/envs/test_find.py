"""Environments by name."""

import sys

import pytest

from envs import ENVS, InputError, find
from envs.arithmetic import Arithmetic
from twice import printed_twice


def test_the_table_holds_each_environment_under_its_own_name():
    assert {name: env.name for name, env in ENVS.items()} == {name: name for name in ENVS}
    assert find("arithmetic") is Arithmetic


def test_every_environment_with_tasks_of_its_own_has_tools_that_can_be_shown_and_tasks_in_each_split():
    for name in ENVS.keys() - {"hosted"}:  # it plays a user's rows
        env = ENVS[name]
        assert [spec.schema for spec in env.tools().values()]
        assert all(env.tasks(split) for split in ("train", "validation", "test"))


DIGESTS = """
import hashlib
from envs import ENVS
for name in sorted(ENVS.keys() - {"hosted"}):
    for split in ("train", "test"):
        found = [(t.id, t.prompt, t.item, list(t.files.items())) for t in ENVS[name].tasks(split, count=8)]
        print(name, split, hashlib.sha256(repr(found).encode()).hexdigest())
"""


def test_tasks_are_the_same_in_every_process():
    printed = printed_twice(DIGESTS)
    assert len(set(printed)) == 2 * (len(ENVS) - 1)


def test_an_environment_of_ones_own_is_found_in_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "my_own_desk.py").write_text("from envs import Environment\nclass Mine(Environment): pass\nx = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    assert find("my_own_desk:Mine").name == "mine"
    with pytest.raises(InputError, match="unknown attribute 'Mime'; did you mean 'Mine'"):
        find("my_own_desk:Mime")
    with pytest.raises(InputError, match="must be a subclass of"):
        find("my_own_desk:x")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("arithmetics", "unknown environment 'arithmetics'; did you mean 'arithmetic'"),
        ("zzz", "unknown environment 'zzz'; there are: "),
        ("no_such_module:Desk", "can't import no_such_module"),
        (":Desk", "not of the form module:attribute"),
        ("envs:", "not of the form module:attribute"),
    ],
)
def test_a_name_that_is_none_is_refused(name, said):
    with pytest.raises(InputError, match=said):
        find(name)
