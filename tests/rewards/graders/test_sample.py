"""What graders see of a text, of a sample object and of an episode."""

import pytest

from envs import Completion, Episode, InputError, Message, Stop, Task, ToolCall, ToolResult, Turn
from rewards.graders import sample

CALL = {"id": "c0", "type": "function", "function": {"name": "look", "arguments": '{"id": 1}'}}


def test_a_text_is_a_sample_as_graders_run_has_it():
    assert sample.of_text("hi") == {
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hi", "tool_calls": []},
                "finish_reason": "stop",
            }
        ],
        "output_text": "hi",
        "output_json": None,
        "output_tools": [],
        "output_reasoning_summary": None,
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        (" [1] ", [1]),
        ("4", 4),
        ("four", None),
        ("", None),
        ("NaN", None),
        ('{"a": 1} x', None),
        ("[" * 100_000, None),
        ("1" * 10_000, None),
    ],
)
def test_output_json_is_what_the_text_says_where_it_is_json(text, value):
    assert sample.of_text(text)["output_json"] == value


def test_a_sample_object_keeps_what_it_says_and_gets_the_rest():
    made = sample.of_json({"choices": [{"message": {"role": "assistant", "content": "hi", "tool_calls": [CALL]}}]})
    assert (made["output_text"], made["output_tools"]) == ("hi", [CALL])
    made = sample.of_json({"output_text": "hi", "output_tools": [CALL], "more": 1})
    assert made["choices"][0]["message"] == {"role": "assistant", "content": "hi", "tool_calls": [CALL]}
    assert made["more"] == 1


@pytest.mark.parametrize(
    "value", [None, 3, [], {}, {"text": "x"}, {"output_text": 3}, {"output_text": "", "output_tools": 1}]
)
def test_what_is_no_sample_is_refused(value):
    with pytest.raises(InputError, match=r"^sample: "):
        sample.of_json(value)


def turn(text, *calls, finish="stop"):
    made = tuple(ToolCall(id=id, name=name, arguments=arguments) for id, name, arguments in calls)
    message = Message(role="assistant", content=text, tool_calls=made)
    results = tuple(ToolResult(call_id=c.id, name=c.name, content="seen", fault=None, seconds=0.5) for c in made)
    return Turn(completion=Completion(message=message, finish=finish), results=results)


@pytest.fixture
def episode():
    turns = [
        turn("", ("c0", "look", '{"id": 1}')),
        turn("so", ("c1", "act", "{}"), ("c2", "act", "{bad")),
        turn("Done."),
    ]
    task = Task.ask("What?", answer="4")
    return Episode(id="e", env="hand", task=task, turns=turns, stop=Stop.DONE, state={"rows": {1, 2}})


@pytest.mark.parametrize(
    ("which", "ids"), [("last_calls", ["c1", "c2"]), ("last_message", []), ("all", ["c0", "c1", "c2"])]
)
def test_which_calls_of_an_episode_are_the_output_is_a_switch(episode, which, ids):
    assert [call["id"] for call in sample.of_episode(episode, which)["output_tools"]] == ids


def test_an_episode_is_its_last_message_and_beyond_the_hosted_one_its_trajectory(episode):
    made = sample.of_episode(episode)
    assert made["output_text"] == "Done."
    assert made["choices"][0]["message"]["tool_calls"] == made["output_tools"]
    trajectory = made["trajectory"]
    roles = "".join(message["role"][0] for message in trajectory["messages"])
    assert roles == "uatatta"
    assert trajectory["turns"][0] == {
        "content": "",
        "tool_calls": [CALL],
        "results": [{"name": "look", "content": "seen", "fault": None, "seconds": 0.5}],
    }
    assert trajectory["stop"] == "done"
    assert sorted(trajectory["state"]["rows"]) == [1, 2]


def test_the_trajectory_is_left_out_where_nobody_reads_it(episode):
    assert "trajectory" not in sample.of_episode(episode, trajectory=False)


def test_one_turn_with_a_call_is_the_hosted_contract():
    made = sample.of_episode(
        Episode(id="e", env="h", task=Task.ask("?"), turns=[turn("", ("c0", "look", '{"id": 1}'))])
    )
    assert made["output_tools"] == [CALL]
    assert made["choices"][0]["finish_reason"] == "tool_calls"


def test_an_episode_of_no_turns_said_nothing():
    assert sample.of_episode(Episode(id="e", env="h", task=Task.ask("?")))["output_text"] == ""


def test_a_turn_that_was_cut_short_says_so():
    made = sample.of_episode(Episode(id="e", env="h", task=Task.ask("?"), turns=[turn("It i", finish="length")]))
    assert made["choices"][0]["finish_reason"] == "length"


def test_half_a_surrogate_pair_becomes_text_that_can_be_sent(episode):
    episode.turns[-1] = turn("x\ud800y", ("c9", "look", '"\ud800"'))
    made = sample.of_episode(episode)
    assert made["output_text"] == "x?y"
    str(made).encode()


def test_the_item_is_the_row_with_the_prompt_where_it_has_none(episode):
    assert sample.of_row(episode) == {"messages": [{"role": "user", "content": "What?"}], "answer": "4"}
    task = Task(id="t", prompt=episode.task.prompt, item={"messages": [], "a": 1})
    assert sample.of_row(Episode(id="e", env="h", task=task)) == {"messages": [], "a": 1}
