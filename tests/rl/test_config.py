from pathlib import Path

import pytest

from envs.errors import InputError
from rl.config import load

ROOT = Path(__file__).parents[2]
MINIMAL = "model: tiny\nenv: {use: desk}\nreward: {calls: {use: valid_calls}}\noutput_dir: runs/x\n"


def config(tmp_path: Path, text: str = MINIMAL) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


RUNS = sorted(path for path in (ROOT / "configs").glob("*.yaml") if not path.name.startswith("ablation_"))


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_every_config_loads(path: Path) -> None:
    assert load(path).env.use


def test_overrides_are_yaml_and_win(tmp_path: Path) -> None:
    overrides = ("seed=7", "trainer.learning_rate=1e-4", "lora.target_modules=[q_proj]", "env.use=arithmetic")
    got = load(config(tmp_path), *overrides)
    assert (got.seed, got.env.use) == (7, "arithmetic")
    assert got.trainer == {"learning_rate": 1e-4}
    assert got.lora == {"target_modules": ["q_proj"]}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sede: 1", r"unknown key 'sede'; did you mean 'seed'\?"),
        ("rollout: {turn: 3}", r"unknown key 'rollout.turn'; did you mean 'turns'\?"),
        ("rollout: {turns: many}", r"rollout.turns: .*valid integer.*'many'"),
        ("rollout: {turns: 0}", r"rollout.turns: .*greater than or equal to 1"),
        ("engine: {kind: server}", r"engine.url belongs to engine.kind 'server'"),
        ("tiny: {steps: 3}\nmodel: Qwen/Qwen3-0.6B", r"'tiny' belongs to model 'tiny'"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_what_would_be_right(tmp_path: Path, line: str, said: str) -> None:
    text = MINIMAL.replace("model: tiny\n", "") if "model:" in line else MINIMAL
    with pytest.raises(InputError, match=said):
        load(config(tmp_path, text + line + "\n"))


def test_a_missing_key_file_or_mapping_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the key 'env' is missing"):
        load(config(tmp_path, "model: tiny\nreward: {}\noutput_dir: x\n"))
    with pytest.raises(InputError, match="can't read the config: No such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="not YAML"):
        load(config(tmp_path, "a: [1"))
    with pytest.raises(InputError, match="a config is a mapping"):
        load(config(tmp_path, "- 1"))
    with pytest.raises(InputError, match="an override is key=value"):
        load(config(tmp_path), "seed")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("credit: {name: grop}", r"credit.name: unknown estimator 'grop'; did you mean 'grpo'\?"),
        ("credit: {name: grpo, proces: 0.5}", r"credit, with grpo: unknown option 'proces'; did you mean 'process'\?"),
        ("credit: {name: rloo, ddof: 0}", r"credit, with rloo: unknown option 'ddof'; there are: process"),
        ("credit: {name: grpo, ddof: much}", r"credit, with grpo.ddof: .*valid integer.*'much'"),
        ("credit: {name: gae_turn}", r"gae_turn needs values, .* a critic: set algorithm: ppo. grouped_td takes"),
        ("algorithm: ppo\ncredit: {name: grpo}", r"grpo compares a group; algorithm ppo .* set one of gae, gae_turn"),
        ("ppo: {}", r"the section 'ppo' belongs to algorithm ppo; set that, or remove it"),
        ("algorithm: ppo\nppo: {cliprange: 1}", r"unknown key 'ppo.cliprange'; did you mean 'cliprange_value'\?"),
        ("algorithm: ppo\nppo: {cliprange_value: 0}", r"ppo.cliprange_value: .*greater than 0"),
        ("algorithm: ppo\ncredit: {rms: 1}", r"credit.rms would have no effect: gae whitens"),
        ("algorithm: ppo\ncredit: {soft_gate: 1}", r"credit.soft_gate: gae gives turn rewards their say itself"),
        ("algorithm: pop", r"algorithm: .*'grpo' or 'ppo'.*'pop'"),
        ("credit: {name: gigpo, states: [[a]]}", r"credit.states: is what the trainer gives with each group"),
        ("credit: {name: reinforce_pp, rms: 1}", r"credit.rms would have no effect: reinforce_pp whitens"),
        ("credit: {soft_gate: 1, process: 0.5}", r"credit.process would have no effect with credit.soft_gate"),
        ("credit: {anneal: [0.8, 0.5]}", r"credit.anneal: two shares of training"),
        ("credit: {rms: 0}", r"credit.rms: .*greater than 0"),
        ("engine: {kind: transformers, handover: merged}", r"engine.handover would have no effect"),
        ("engine: {kind: server, url: 'http://x', handover: adapter}", r"engine.handover would have no effect"),
        ("engine: {kind: server, url: 'http://x', dtype: bfloat16}", r"engine.dtype would have no effect"),
        ("engine: {kind: server, url: 'http://x', max_model_len: 9}", r"engine.max_model_len would have no effect"),
        (
            "engine: {kind: transformers}\ndeterministic: true",
            r"deterministic: engine.kind 'transformers' can't keep it",
        ),
        ("rollout: {max_unscored: 2}", r"rollout.max_unscored: .*less than or equal to 1"),
        ("seed: 1\nseed: 2", r"not YAML: the key 'seed' is there twice"),
    ],
)
def test_a_setting_that_would_be_ignored_or_misread_is_an_error(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load(config(tmp_path, MINIMAL + line + "\n"))


def test_the_weight_of_turn_rewards_goes_down_as_training_goes_on(tmp_path: Path) -> None:
    credit = load(config(tmp_path), "credit.process=0.4", "credit.anneal=[0.5, 0.8]", "credit.ddof=0").credit
    assert [credit.at(done).options["process"] for done in (0.0, 0.65, 0.9)] == pytest.approx([0.4, 0.2, 0.0])
    assert credit.at(0.65).options["ddof"] == 0
    gate = load(config(tmp_path), "credit.soft_gate=2", "credit.anneal=[0.5, 0.8]").credit
    assert [gate.at(done).soft_gate for done in (0.0, 0.65, 0.9)] == pytest.approx([2.0, 1.0, 0.0])
    fixed = load(config(tmp_path), "credit.process=0.4").credit
    assert fixed.at(0.9) is fixed


def test_ppo_asks_its_critic_by_the_token_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    assert load(config(tmp_path), "algorithm=ppo").credit.name == "gae"
    got = load(config(tmp_path), "algorithm=ppo", "credit.lam=0.5")
    assert (got.credit.name, got.credit.options) == ("gae", {"lam": 0.5})
    assert got.ppo is not None and got.ppo.cliprange_value == 0.2
    assert load(config(tmp_path), "algorithm=ppo", "credit.name=gae_turn").credit.name == "gae_turn"
    assert load(config(tmp_path)).ppo is None


@pytest.mark.parametrize(
    "overrides",
    [
        ("engine.kind=transformers", "credit.name=rloo", "credit.process=0.5"),
        ("algorithm=ppo", "ppo.critic_learning_rate=1e-3"),
    ],
)
def test_what_is_written_beside_the_results_loads_again(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    import json

    first = load(config(tmp_path), *overrides)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(first.model_dump(mode="json")))
    assert load(path) == first


def test_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = config(tmp_path)
    path.write_bytes(b"model: \xff\xfe")
    with pytest.raises(InputError, match="not text in UTF-8"):
        load(path)
