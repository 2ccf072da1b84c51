"""How likely the policy finds the gold answer, against a plain forward of the same model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.stack
pytest.importorskip("torch")

from envs import Completion, Episode, Message, Task, ToolCall, ToolResult, Turn  # noqa: E402
from letters import Letters  # noqa: E402
from rewards import information_gain  # noqa: E402
from rewards.process import Gold  # noqa: E402
from rl.belief import Belief  # noqa: E402
from rl.chat import Chat  # noqa: E402
from rl.engines import Sampling  # noqa: E402
from rl.policy import EnginePolicy  # noqa: E402
from runs import IN_PROCESS  # noqa: E402

GOLD = Gold(field="count", lead="<|im_end|>The answer is ")
"""Behind a control token and a text."""

SAMPLING = Sampling(max_tokens=4)


@dataclass(frozen=True)
class Setting:
    engine: Any
    chat: Chat
    model: Any

    def expected(self, prompt: list[int], lead: str, answer: str) -> float:
        """By the definition: every token of the answer, each after all that is before it."""
        import torch

        encode = self.chat.tokenizer.encode
        ahead = [*prompt, *encode(lead, add_special_tokens=False)]
        ids = [*prompt, *encode(lead + answer, add_special_tokens=False)]
        assert ids[: len(ahead)] == ahead
        found = []
        for place in range(len(ahead), len(ids)):
            with torch.no_grad():
                found.append(float(self.model(torch.tensor([ids[:place]])).logits[0, -1].log_softmax(-1)[ids[place]]))
        return math.exp(sum(found) / len(found))


@pytest.fixture(scope="module")
def setting(random_base: Path, run: Any) -> Iterator[Setting]:
    import torch
    from transformers import AutoModelForCausalLM

    from rl.engines.transformers import TransformersEngine
    from rl.session import read_tokenizer

    blocks = {name: IN_PROCESS[name] for name in ("num_blocks", "max_batch_tokens")}
    engine = run(TransformersEngine.open(model=random_base, dtype="float32", max_model_len=512, engine_args=blocks))
    model = AutoModelForCausalLM.from_pretrained(random_base, dtype=torch.float32)
    yield Setting(engine, Chat(read_tokenizer(str(random_base))), model)
    run(engine.close())


def noted(setting: Setting, turns: int) -> Episode:
    """An episode whose first turns are written by hand, in tokens, so that the model's own comes after them."""
    chat, tools = setting.chat, list(Letters.tools().values())
    episode = Episode(id="e", env="letters", task=Task.ask("How many?", count=407))
    for number in range(turns):
        call = ToolCall(id=f"call_{number}_0", name="note", arguments=f'{{"text": "{number}"}}')
        message = Message(role="assistant", tool_calls=(call,))
        prompt = chat.prompt(episode.task.prompt, tools)
        if episode.turns:
            said, results = episode.turns[-1].completion, episode.turns[-1].results
            prompt = chat.extend([*said.prompt_ids, *said.token_ids], said, results)
        said = Completion(message=message, prompt_ids=tuple(prompt), token_ids=tuple(chat.write(message, tools)))
        result = ToolResult(call_id=call.id, name="note", content=f"noted {number}")
        episode.turns.append(Turn(completion=said, results=(result,)))
    return episode


def test_every_turn_knows_how_likely_the_answer_was_before_it(setting: Setting, run: Any) -> None:
    policy = EnginePolicy(setting.engine, setting.chat, SAMPLING, belief=Belief(setting.engine, setting.chat, GOLD))
    expected, turns = [], []
    for before in range(3):
        episode = noted(setting, before)
        said = run(policy(episode, Letters.tools()))
        expected.append(setting.expected(list(said.prompt_ids), GOLD.lead, "407"))
        assert math.log(said.belief) == pytest.approx(math.log(expected[-1]), abs=1e-4)
        turns.append(Turn(completion=said))
    assert len(set(expected)) == 3
    episode.turns = turns
    gains = [after - before for before, after in pairwise(expected)]
    assert information_gain(episode, field="count").turns == pytest.approx((*gains, None), abs=1e-5)


def test_a_policy_that_is_not_asked_notes_nothing(setting: Setting, run: Any) -> None:
    said = run(EnginePolicy(setting.engine, setting.chat, SAMPLING)(noted(setting, 0), Letters.tools()))
    assert said.belief is None


def test_an_answer_that_is_not_there_or_does_not_fit_is_not_looked_at(setting: Setting, run: Any) -> None:
    async def looked(length: int, **item: Any) -> float | None:
        return await Belief(setting.engine, setting.chat, Gold(lead="So "))(Task.ask("?", **item), [1] * length)

    room = setting.engine.max_model_len - len(setting.chat.said("So ", "it"))
    assert run(looked(room - 1, answer="it")) is not None
    assert run(looked(room, answer="it")) is None
    assert run(looked(5)) is None


def test_no_answer_holds_a_control_token_and_a_lead_may(setting: Setting) -> None:
    controls = set(setting.chat.tokenizer.get_added_vocab().values())
    assert not controls & set(setting.chat.said("", "<|im_end|>"))
    assert len(controls & set(setting.chat.said("<|im_end|>", "<|im_end|>"))) == 1
