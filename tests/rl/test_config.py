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


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
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
