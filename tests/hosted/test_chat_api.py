"""`/v1/chat/completions` on a real engine: the base and adapters of it side by side, whole and as streams."""

import json
import math

import openai
import pytest

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1200)]
pytest.importorskip("torch")

from hosting import Hosting  # noqa: E402

ASK = [{"role": "user", "content": "write the letters of 3"}]
TOOL = {
    "type": "function",
    "function": {"name": "note", "parameters": {"type": "object", "properties": {"text": {"type": "string"}}}},
}


@pytest.fixture(scope="module")
def adapter(random_base, tmp_path_factory):
    """An adapter that changes what the base says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(random_base, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    directory = tmp_path_factory.mktemp("adapter") / "adapter"
    model.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def chatting(random_base, adapter, tmp_path_factory):
    made = Hosting(
        tmp_path_factory.mktemp("chat") / "home",
        models={"plain": str(random_base), "tuned": {"model": str(random_base), "adapter": str(adapter)}},
        engine={"max_model_len": 512, "kv_cache_memory_bytes": 1 << 26},
        lora={"r": 4, "lora_alpha": 8},
    )
    yield made
    made.close()


@pytest.fixture(scope="module")
def ask(chatting):
    """One chat; greedy and short unless said otherwise."""

    def make(model="plain", messages=ASK, **more):
        request = {"temperature": 0, "max_completion_tokens": 12} | more
        return chatting.client.with_options(timeout=600).chat.completions.create(
            model=model, messages=messages, **request
        )

    return make


def test_the_base_and_an_adapter_answer_side_by_side(ask):
    first = {model: ask(model).choices[0].message.content for model in ("plain", "tuned")}
    assert first["plain"] != first["tuned"]
    assert {model: ask(model).choices[0].message.content for model in ("tuned", "plain")} == first


def test_an_answer_is_counted_and_cut_at_its_limit(ask):
    answer = ask(max_completion_tokens=5)
    assert answer.object == "chat.completion" and answer.model == "plain"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 5
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 5


def test_a_stream_says_what_the_whole_answer_says(ask):
    whole = ask(logprobs=True, top_logprobs=2)
    chunks = list(ask(stream=True, stream_options={"include_usage": True}, logprobs=True, top_logprobs=2))
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(choice.delta.content or "" for choice in choices) == whole.choices[0].message.content
    assert choices[0].delta.role == "assistant"
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == [whole.choices[0].finish_reason]
    assert chunks[-1].usage == whole.usage
    streamed = [token for choice in choices if choice.logprobs for token in choice.logprobs.content]
    assert [token.token for token in streamed] == [token.token for token in whole.choices[0].logprobs.content]


def test_logprobs_are_those_of_the_sampled_tokens_and_the_likeliest_beside_them(ask):
    places = ask(logprobs=True, top_logprobs=3).choices[0].logprobs.content
    assert len(places) == 12
    for place in places:
        assert len(place.top_logprobs) == 3
        assert place.top_logprobs[0].logprob == pytest.approx(place.logprob, abs=1e-5)  # greedy takes the likeliest
        assert math.exp(sum(math.exp(one.logprob) for one in place.top_logprobs)) <= math.e + 1e-3


def test_several_answers_come_by_a_seed_and_again_by_the_same(ask):
    def said(seed):
        return [choice.message.content for choice in ask(n=3, temperature=1, seed=seed).choices]

    assert said(1) == said(1) != said(2)
    assert len(set(said(1))) > 1


def test_a_stop_ends_the_answer_and_is_not_part_of_it(ask):
    whole = ask(max_completion_tokens=40).choices[0].message.content
    stop = whole[len(whole) // 2 :][:2]
    cut = ask(max_completion_tokens=40, stop=[stop, "never said"])
    assert cut.choices[0].message.content == whole.partition(stop)[0]
    assert cut.choices[0].finish_reason == "stop"
    streamed = ask(max_completion_tokens=40, stop=stop, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices)
    assert text == whole.partition(stop)[0]


def test_conversations_with_tools_are_taken(ask):
    call = {"id": "call_1", "type": "function", "function": {"name": "note", "arguments": '{"text": "a"}'}}
    messages = [
        {"role": "developer", "content": "be brief"},
        *ASK,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "noted"},
    ]
    assert ask(messages=messages, tools=[TOOL]).choices[0].message.role == "assistant"


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"model": "nobody"}, "model", "model_not_found"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages", "invalid_request"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", "invalid_request"),
        ({"max_completion_tokens": 100_000}, "messages", "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "x y " * 5000}]}, "messages", "context_length_exceeded"),
        ({"temperature": 9}, "temperature", "invalid_value"),
        ({"extra_body": {"frequency_penalty": 1}}, "frequency_penalty", "unknown_parameter"),
        ({"extra_body": {"tool_choice": "required"}, "tools": [TOOL]}, "tool_choice", "invalid_value"),
        ({"top_logprobs": 3}, None, "invalid_value"),
    ],
)
def test_what_can_not_be_had_is_refused_by_its_param(ask, change, param, code):
    with pytest.raises(openai.APIStatusError) as refused:
        ask(**change)
    assert refused.value.status_code in (400, 404)
    assert (refused.value.param, refused.value.code) == (param, code)


def test_who_hangs_up_ends_the_sampling(chatting):
    url = f"{chatting.url}/v1/chat/completions"
    body = {"model": "plain", "messages": ASK, "stream": True, "max_completion_tokens": 400, "n": 4}
    import httpx

    with httpx.stream("POST", url, json=body, timeout=600) as answer:
        assert json.loads(next(answer.iter_lines()).removeprefix("data: "))["object"] == "chat.completion.chunk"
    assert chatting.ask("GET", "/v1/models").status_code == 200
