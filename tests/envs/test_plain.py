"""Text that can be looked at."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from envs.plain import visible


def test_what_a_terminal_would_obey_is_written_out():
    assert visible("a\x1b[31mb\rc\x07\x9b2J") == "a\\x1b[31mb\\x0dc\\x07\\x9b2J"
    assert visible("\u202egpj.exe\u2066\ud800") == "\\u202egpj.exe\\u2066\\ud800"


def test_what_people_write_stays_as_it_is():
    text = "Grüezi 漢字 سلام 👩\u200d🚀\n\tnext {}[]<>"
    assert visible(text) == text


@given(st.text(st.characters()))
def test_no_control_character_is_left_and_once_is_enough(text):
    shown = visible(text)
    assert all(unicodedata.category(c) not in ("Cc", "Cs") or c in "\n\t" for c in shown)
    assert visible(shown) == shown
    shown.encode()
