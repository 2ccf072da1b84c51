"""The demo from end to end: it learns, and its records say how."""

import pytest

from rl.records import Run
from runs import Demo

pytestmark = [pytest.mark.slow, pytest.mark.stack]


@pytest.mark.timeout(1500)
def test_the_demo_learns_and_its_records_show_with_what(demo: Demo) -> None:
    found = demo.numbers
    for decoding in ("greedy", "sampled"):
        assert found["trained"][decoding]["low"] > found["base"][decoding]["high"] - 0.05, found
    assert found["trained"]["sampled"]["mean"] > found["base"]["sampled"]["mean"] + 0.2, found
    assert set(found["seconds"]) == {"warm_start", "train", "total"}

    run = Run.read(demo.run)
    run.verify()
    assert {"vllm", "trl", "peft", "torch", "transformers"} <= set(run.versions["packages"])
    assert run.config["engine"]["kind"] == "vllm"
    assert (demo.run / "adapter" / "adapter_model.safetensors").exists()
    episodes = list(run.episodes())
    assert {episode.step for episode in episodes} == set(range(run.config["trainer"]["max_steps"]))
    for episode in episodes:
        assert {turn.completion.version for turn in episode.played.episode.turns} == {episode.step}
    assert f"run: {demo.run}" in demo.said
