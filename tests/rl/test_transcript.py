from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.types import (
    Approval,
    Completion,
    Cost,
    Episode,
    Fault,
    Finish,
    Message,
    Role,
    Stop,
    Task,
    ToolCall,
    ToolResult,
    Turn,
)
from made import played, turn
from rewards.score import Score
from rl.rollout import Played
from rl.transcript import decode, encode

TEXT = st.text(st.characters(), max_size=8)  # lone surrogates too: models write them
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
ROW = st.dictionaries(TEXT, JSON, max_size=3)
FLOAT = st.floats(allow_nan=False)
IDS = st.lists(st.integers(0, 200_000), max_size=6).map(tuple)
COST = st.builds(
    Cost,
    prompt_tokens=st.integers(0),
    sampled_tokens=st.integers(0),
    tool_calls=st.integers(0),
    seconds=st.floats(0, 1e9),
    money=st.floats(0, 1e9),
)
CALL = st.builds(ToolCall, id=TEXT, name=TEXT, arguments=TEXT)
MESSAGE = st.builds(
    Message,
    role=st.sampled_from(get_args(Role)),
    content=TEXT,
    tool_calls=st.lists(CALL, max_size=2).map(tuple),
    tool_call_id=st.none() | TEXT,
)
APPROVAL = st.builds(Approval, by=TEXT, granted=st.booleans(), reason=TEXT, at=TEXT)
RESULT = st.builds(
    ToolResult,
    call_id=TEXT,
    name=TEXT,
    content=TEXT,
    fault=st.none() | st.sampled_from(get_args(Fault)),
    seconds=st.floats(0, 1e9),
    money=st.floats(0, 1e9),
    approvals=st.lists(APPROVAL, max_size=2).map(tuple),
)


@st.composite
def turns(draw: st.DrawFn) -> list[Turn]:
    """Turns whose prompts extend the sequence before, as a rollout's do, or start anew, as a server's may."""
    made: list[Turn] = []
    sequence: tuple[int, ...] = ()
    for _ in range(draw(st.integers(0, 4))):
        keep = draw(st.sampled_from([len(sequence), draw(st.integers(0, len(sequence)))]))
        sampled = draw(IDS)
        completion = Completion(
            message=draw(MESSAGE),
            prompt_ids=sequence[:keep] + draw(IDS),
            token_ids=sampled,
            logprobs=tuple(draw(st.lists(FLOAT, min_size=len(sampled), max_size=len(sampled)))),
            finish=draw(st.sampled_from(get_args(Finish))),
            version=draw(st.integers(0, 1000)),
            belief=draw(st.none() | st.floats(0, 1)),
            cost=draw(COST),
        )
        sequence = completion.prompt_ids + completion.token_ids
        made.append(Turn(completion=completion, results=tuple(draw(st.lists(RESULT, max_size=2)))))
    return made


EPISODE = st.builds(
    Episode,
    id=TEXT,
    env=TEXT,
    task=st.builds(
        Task,
        id=TEXT,
        prompt=st.lists(MESSAGE, max_size=2).map(tuple),
        item=ROW,
        files=st.dictionaries(TEXT, TEXT, max_size=2),
    ),
    turns=turns(),
    stop=st.none() | st.sampled_from(Stop),
    fault=st.none() | TEXT,
    cost=COST,
    context=ROW,
    state=ROW,
)
SCORE = st.builds(
    Score,
    value=FLOAT,
    turns=st.none() | st.lists(st.none() | FLOAT, max_size=3).map(tuple),
    parts=st.dictionaries(TEXT, FLOAT, max_size=2),
    error=st.none() | TEXT,
    graders=st.dictionaries(TEXT, TEXT, max_size=1),
)


@given(EPISODE, SCORE)
@settings(max_examples=300, deadline=None)
def test_an_episode_survives_being_written_down_and_read(episode: Episode, score: Score) -> None:
    before = Played(episode=episode, score=score)
    text = json.dumps(encode(before), allow_nan=False)
    assert text.isascii()
    assert decode(json.loads(text)) == before


def test_an_unscored_episode_stays_unscored() -> None:
    after = decode(json.loads(json.dumps(encode(played(value=None)), allow_nan=False)))
    assert math.isnan(after.score.value)
    assert after.score.error == "the judge is down"


def test_logprobs_come_back_to_the_last_bit() -> None:
    episode = played(turns=(turn(prompt=(1,), sampled=(2, 3)),)).episode
    odd = (-0.1 - 2**-55, -1e-310)
    episode.turns[0] = replace(episode.turns[0], completion=replace(episode.turns[0].completion, logprobs=odd))
    back = decode(json.loads(json.dumps(encode(Played(episode=episode, score=Score(value=1.0))))))
    assert [x.hex() for x in back.episode.turns[0].completion.logprobs] == [x.hex() for x in odd]


def test_a_prompt_is_written_once_however_many_turns_repeat_it() -> None:
    sequence: tuple[int, ...] = tuple(range(100))
    made = []
    for _ in range(3):
        made.append(turn(prompt=sequence, sampled=(7,) * 10))
        sequence = (*sequence, *(7,) * 10, *(9,) * 5)
    tokens = [action["tokens"] for action in encode(played(turns=tuple(made)))["actions"]]
    assert [(t["keep"], len(t["prompt"])) for t in tokens] == [(0, 100), (110, 5), (125, 5)]


def test_the_schema_names_context_actions_answer_outcome_and_cost() -> None:
    tree = encode(played())
    assert list(tree) == ["id", "env", "task", "context", "actions", "answer", "outcome", "cost"]
    assert tree["answer"] == "it is so"
    assert list(tree["outcome"]) == ["stop", "fault", "state", "score"]


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_numbers_that_json_lacks_are_spelled_out(value: float) -> None:
    assert json.loads(json.dumps(encode(played(value=value)), allow_nan=False))["outcome"]["score"]["value"] == str(
        value
    )


def test_price_and_approvals_are_written_only_where_there_are_any() -> None:
    free = ToolResult(call_id="c", name="look", content="seen")
    paid = replace(free, money=0.5, approvals=(Approval(by="deny", granted=False, reason="no", at="2026-01-01"),))
    (action,) = encode(played(turns=(replace(turn(), results=(free, paid)),)))["actions"]
    action = json.loads(json.dumps(action))
    assert action["results"][0] == {"call_id": "c", "name": "look", "content": "seen", "fault": None, "seconds": 0.0}
    assert action["results"][1]["approvals"] == [{"by": "deny", "granted": False, "reason": "no", "at": "2026-01-01"}]
    assert action["results"][1]["money"] == 0.5
