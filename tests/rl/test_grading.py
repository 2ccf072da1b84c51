"""`rft grade`, by its command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from attacks.ground import missing
from rl.cli import CONFIGS, main
from served import Server

EQ = {
    "type": "string_check",
    "name": "right",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.answer }}",
    "operation": "eq",
}
PYTHON = {
    "type": "python",
    "name": "p",
    "source": "def grade(sample, item):\n    return len(sample['output_text']) / 4\n",
}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grader.json").write_text(json.dumps(EQ))
    (tmp_path / "python.json").write_text(json.dumps(PYTHON))
    (tmp_path / "item.json").write_text('{"answer": "4"}')
    (tmp_path / "four.txt").write_text("4\n")
    (tmp_path / "five.txt").write_text("5")
    rows = [{"item": {"answer": "4"}, "samples": ["4", "5"]}, {"item": {"answer": "7"}, "sample": "7"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_one_sample_is_graded_as_graders_run_does(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grade", "run", "grader.json", "--item", "item.json", "--sample", "four.txt", "--json"]) == 0
    body = printed(capsys)
    assert (body["reward"], body["metadata"]["name"], body["sub_rewards"]) == (1.0, "right", {})
    assert main(["grade", "run", "grader.json", "--item", "item.json", "--sample", "five.txt"]) == 0
    assert capsys.readouterr().out.startswith("reward 0\n")


def test_a_sample_may_be_an_object(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    called = EQ | {"input": "{{ sample.output_tools[0].function.name }}"}
    (files / "called.json").write_text(json.dumps({"grader": called}))
    tools = [{"id": "c", "type": "function", "function": {"name": "4", "arguments": "{}"}}]
    for tree in ({"output_text": "", "output_tools": tools}, {"sample": {"output_text": "", "output_tools": tools}}):
        (files / "sample.json").write_text(json.dumps(tree))
        assert main(["grade", "run", "called.json", "--item", "item.json", "--sample", "sample.json", "--json"]) == 0
        assert printed(capsys)["reward"] == 1.0


def test_grading_that_failed_is_reward_0_with_its_error_and_exit_code_1(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["grade", "run", "grader.json", "--sample", "four.txt", "--json"]) == 1
    body = printed(capsys)
    assert body["reward"] == 0.0
    assert body["metadata"]["errors"]["invalid_variable_error"] is True
    assert main(["grade", "run", "grader.json", "--sample", "four.txt"]) == 1
    assert "invalid_variable_error: the variable 'item.answer'" in capsys.readouterr().out


@pytest.mark.skipif(bool(missing("bwrap") and missing("landlock")), reason="no tier can run here")
def test_python_runs_in_a_sandbox(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grade", "run", "python.json", "--sample", "four.txt", "--json"]) == 0
    assert printed(capsys)["reward"] == 0.25


def test_python_without_a_sandbox_needs_its_reason_which_is_said(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["grade", "run", "python.json", "--sample", "four.txt", "--unsafe-python", "it is mine", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["reward"] == 0.25
    assert "it is mine" in captured.err


RUN = ["grade", "run", "grader.json", "--item", "item.json", "--sample", "four.txt"]


def test_settings_are_read(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "settings.json").write_text('{"error_score": -1, "clamp": [0, 1]}')
    (files / "bad.json").write_text('{"eror_score": -1}')
    assert main([*RUN, "--settings", "settings.json"]) == 0
    capsys.readouterr()
    assert main([*RUN, "--settings", "bad.json"]) == 2
    assert "did you mean 'error_score'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("run none.json --sample four.txt", "none.json: can't be read"),
        ("run grader.json --sample none.txt", "none.txt: can't read the sample"),
        ("run grader.json --sample item.json", "item.json (to grade it as text, name it .txt): expected a text, or an"),
        ("run grader.json --sample four.txt --item four.txt", "four.txt: expected an object, found int"),
        ("run grader.json --sample four.txt --item rows.jsonl", "rows.jsonl: not JSON"),
        ("run grader.json --sample four.txt --judge none.yaml", "--judge none.yaml: neither a URL nor a file"),
        ("run grader.json --sample four.txt --judge four.txt", "four.txt: expected an object with base_url"),
        ("run grader.json --sample four.txt --unsafe-python mine", "unsafe_python would have no effect"),
        ("run grader.json --sample four.txt --judge http://x/v1", "judge would have no effect"),
        ("validate four.txt.json", "can't be read"),
        ("score grader.json --data none.jsonl", "none.jsonl: "),
        ("score grader.json --data item.json", "item.json, line 1: unknown field 'answer'"),
    ],
)
def test_input_that_can_not_be_used_is_named(
    files: Path, capsys: pytest.CaptureFixture[str], arguments: str, said: str
) -> None:
    assert main(["grade", *arguments.split()]) == 2
    assert said in capsys.readouterr().err


def test_a_valid_grader_is_shown_with_its_names(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "nameless.json").write_text(json.dumps({k: v for k, v in PYTHON.items() if k != "name"}))
    assert main(["grade", "validate", "nameless.json", "--json"]) == 0
    assert printed(capsys)["grader"]["name"].startswith("grader-")


def test_an_invalid_grader_is_a_no_with_its_reason(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "bad.json").write_text(json.dumps(EQ | {"operation": "neq"}))
    assert main(["grade", "validate", "bad.json"]) == 1
    assert "bad.json.operation: Input should be 'eq'" in capsys.readouterr().out
    assert main(["grade", "validate", "bad.json", "--json"]) == 1
    assert printed(capsys)["error"]["code"] == "invalid_grader"


def test_many_samples_are_graded_and_summed_up(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grade", "score", "grader.json", "--data", "rows.jsonl", "--out", "out.jsonl", "--json"]) == 0
    found = printed(capsys)
    assert (found["samples"], found["unscored"], found["errors"]) == (3, 0, {})
    assert found["reward_mean"] == pytest.approx(2 / 3)
    lines = [json.loads(line) for line in (files / "out.jsonl").read_text().splitlines()]
    assert [line["reward"] for line in lines] == [1.0, 0.0, 1.0]
    assert [line["where"] for line in lines][1] == "rows.jsonl, line 1, sample 2"
    assert main(["grade", "score", "grader.json", "--data", "rows.jsonl"]) == 0
    assert "reward_mean" in capsys.readouterr().out


def test_samples_without_a_score_are_counted_and_a_no(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "rows.jsonl").write_text('{"sample": "4"}\n{"item": {"answer": "4"}, "sample": "4"}\n')
    assert main(["grade", "score", "grader.json", "--data", "rows.jsonl", "--json"]) == 1
    found = printed(capsys)
    assert (found["unscored"], found["reward_mean"], found["errors"]) == (1, 1.0, {"invalid_variable_error": 1})


def test_the_bench_says_its_verdict_as_text_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    folder = CONFIGS / "graders"
    good = ["grade", "bench", f"{folder}/good/grader.json", "--data", f"{folder}/good/labelled.jsonl"]
    assert main(good) == 0
    assert capsys.readouterr().out.endswith("verdict: go\n")
    solved = ["grade", "bench", f"{folder}/solved/grader.json", "--data", f"{folder}/solved/labelled.jsonl"]
    assert main([*solved, "--samples", f"{folder}/solved/samples.jsonl", "--json"]) == 1
    report = printed(capsys)
    assert report["verdict"] == "don't use RFT for this"
    assert [finding["kind"] for finding in report["findings"]] == ["solved"]


def test_the_bench_estimates_the_cost_of_the_job_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    folder = CONFIGS / "graders" / "good"
    bench = ["grade", "bench", f"{folder}/grader.json", "--data", f"{folder}/labelled.jsonl", "--json"]
    assert main([*bench, "--rows", "1000", "--epochs", "3", "--group", "4"]) == 0
    report = printed(capsys)
    assert report["cost"]["grades"] == 12_000
    assert list(report["signal"]["useful"]) == ["4", "8", "16"]


def test_the_bench_draws_from_a_policy(capsys: pytest.CaptureFixture[str]) -> None:
    folder = CONFIGS / "graders" / "solved"
    bench = ["grade", "bench", f"{folder}/grader.json", "--data", f"{folder}/labelled.jsonl", "--json"]
    server = Server()

    def backwards(request: dict[str, Any]) -> tuple[int, Any]:
        word = request["messages"][-1]["content"].split()[3]
        message = {"role": "assistant", "content": word[::-1]}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return 200, {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}

    try:
        server.answer = backwards
        assert main([*bench, "--policy", server.url, "--model", "m", "--draw", "2"]) == 1
        report = printed(capsys)
        assert (report["signal"]["samples"], report["signal"]["at_ceiling"]) == (28, 1.0)
        assert {heard["model"] for heard in server.heard} == {"m"}
        server.answer = lambda request: (401, {"error": {"message": "wrong key"}})
        assert main([*bench, "--policy", server.url, "--model", "m"]) == 3
        assert "wrong key" in capsys.readouterr().err
        assert main([*bench, "--policy", server.url]) == 2
        assert "--policy needs --model" in capsys.readouterr().err
    finally:
        server.close()


@pytest.mark.parametrize("option", ["--group 1", "--repeats 0", "--probed 0", "--epochs 0", "--rows 0"])
def test_numbers_that_make_no_sense_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = CONFIGS / "graders" / "good"
    bench = ["grade", "bench", f"{folder}/grader.json", "--data", f"{folder}/labelled.jsonl"]
    with pytest.raises(SystemExit) as ended:
        main([*bench, *option.split()])
    assert ended.value.code == 2
    assert f"argument {option.split()[0]}: expected a whole number of at least" in capsys.readouterr().err


def test_a_judge_is_named_by_url_or_by_file_and_its_money_is_counted(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = [{"role": "user", "content": "Is {{ sample.output_text }} right?"}]
    (files / "judge.json").write_text(json.dumps({"type": "score_model", "model": "o3", "input": message}))
    server = Server()
    answer = {"role": "assistant", "content": '{"steps": [], "result": 0.5}'}
    choice = {"index": 0, "message": answer, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    try:
        server.answer = lambda request: (200, body)
        score = ["grade", "score", "judge.json", "--data", "rows.jsonl", "--json"]
        assert main([*score, "--judge", server.url]) == 0
        assert printed(capsys)["money"] == 0.0
        prices = {"local": {"input": 1, "output": 10}}
        config = {"base_url": server.url, "models": {"o3": "local"}, "prices": prices}
        (files / "at.yaml").write_text(json.dumps(config))
        assert main([*score, "--judge", "at.yaml"]) == 0
        found = printed(capsys)
        assert (found["reward_mean"], found["tokens"]["total_tokens"]) == (0.5, 3300)
        assert found["money"] == pytest.approx(3 * (1000 * 1 + 100 * 10) / 1e6)
    finally:
        server.close()
