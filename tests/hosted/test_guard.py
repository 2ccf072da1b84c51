"""Who is answered."""

import openai
import pytest

from hosting import Hosting
from rl.cli import BAD_INPUT, CONFIGS, main
from rl.config import load
from rl.hosted import local


@pytest.fixture
def locked(tmp_path):
    made = Hosting(tmp_path / "home", token="right", working=False)
    yield made
    made.close()


def test_with_a_token_only_who_has_it_is_answered(locked):
    assert locked.client.models.list().data
    with pytest.raises(openai.AuthenticationError) as refused:
        locked.client.with_options(api_key="wrong").models.list()
    assert refused.value.code == "invalid_api_key"
    assert locked.ask("GET", "/v1/models").status_code == 401


def test_without_a_token_any_key_will_do_on_this_machine(hosting):
    assert hosting.client.with_options(api_key="whatever").models.list().data


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 403),
        ({"host": "[::1"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "localhost:8000", "origin": "http://localhost:8000"}, 200),
        ({"host": "[::1]:8000"}, 200),
    ],
)
def test_web_pages_and_borrowed_names_are_not_answered(hosting, headers, status):
    assert hosting.ask("GET", "/v1/models", headers=headers).status_code == status


def test_beyond_this_machine_a_token_is_needed(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("RFT_API_KEY", raising=False)
    assert main(["serve", "--host", "0.0.0.0", "--home", str(tmp_path / "home")]) == BAD_INPUT
    assert "RFT_API_KEY" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


def test_without_a_config_the_embedded_policy_is_served_with_the_demos_settings():
    served = local.read(CONFIGS / "serve" / "tiny.yaml")
    demo = load(CONFIGS / "demo.yaml")
    assert served.base("tiny").model == demo.model == "tiny"
    assert served.lora == demo.lora and served.engine == demo.engine.arguments
    assert served.rollout == {"max_tokens": demo.rollout.max_tokens}
    for name, value in served.trainer.items():
        assert demo.trainer[name] == value, name


def test_a_port_that_is_taken_is_bad_input(hosting, tmp_path, capsys):
    port = hosting.url.rpartition(":")[2]
    assert main(["serve", "--port", port, "--home", str(tmp_path / "other")]) == BAD_INPUT
    assert "name another --host or --port" in capsys.readouterr().err
