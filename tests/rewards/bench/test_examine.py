"""The bench as a whole: bundled examples get the right verdict, and every kind of bad grader is caught by name."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from rewards.bench import KINDS, Job, Options, examine
from rewards.graders import Grader, Judge, JudgeConfig, Ran, Services, Settings, load, parse, rows
from rewards.graders.child import graded
from rewards.graders.python import read_result
from served import Server

BUNDLES = Path(__file__).parents[3] / "configs" / "graders"
TEXT = "{{ sample.output_text }}"
EQ = {"type": "string_check", "input": TEXT, "reference": "{{ item.answer }}", "operation": "eq"}
CAPITALS = ["Vienna", "Paris", "Rome", "Madrid", "Lisbon", "Athens"]
CAPITALS += ["Oslo", "Riga", "Bern", "Prague", "Sofia", "Dublin"]
JUDGE_INPUT = "Judge the answer.\n\nQuestion: {{ item.question }}\n\nAnswer: {{ sample.output_text }}"


def check(**change):
    return EQ | change


def python(body):
    return {"type": "python", "name": "p", "source": f"import json, os, random\ndef grade(sample, item):\n    {body}\n"}


def multi(formula, **graders):
    rest = {"invalid_grade": graders.pop("invalid_grade")} if "invalid_grade" in graders else {}
    return {"type": "multi", "name": "m", "graders": graders, "calculate_output": formula} | rest


def similar(metric="fuzzy_match", reference="{{ item.answer }}"):
    return {"type": "text_similarity", "input": TEXT, "reference": reference, "evaluation_metric": metric}


JUDGE = {"type": "score_model", "name": "j", "model": "judge", "input": [{"role": "user", "content": JUDGE_INPUT}]}


def data(*samples, **item):
    """Rows of 12 prompts. A sample is a text with {right} and {wrong} in it, and a label or labels."""
    found = []
    for i, city in enumerate(CAPITALS):
        wrong = CAPITALS[i - 1]
        question = f"Which capital has the number {i}? Say its name alone."
        row = {"question": question, "answer": city, "messages": [{"role": "user", "content": question}]} | item
        texts = [(text.replace("<right>", city).replace("<wrong>", wrong), said) for text, said in samples]
        lines = [{"sample": text, "labels" if isinstance(said, list) else "label": said} for text, said in texts]
        found += rows.of_tree({"item": row, "samples": lines}, f"row {i}")
    return found


PLAIN = data(("<right>", 1), ("<wrong>", 0), ("<right>", 1), ("no idea", 0))
JSON = data(('{"city": "<right>", "sure": true}', 1), ('{"city": "<wrong>", "sure": false}', 0), ("<wrong>", 0))
CITY = "return float(json.loads(sample['output_text'])['city'] == item['answer'])"


def prompted(answer):
    """A judge that scores by what it reads: a function of its prompt."""

    def made(request):
        steps = [{"description": "read", "conclusion": "read"}]
        text = json.dumps({"steps": steps, "result": answer(request["messages"][-1]["content"])})
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
        return 200, {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [choice],
            "usage": usage,
        }

    return made


def right(prompt):
    """What an honest judge says: the number in the question is the place of the capital in the answer."""
    number = int(re.search(r"number (\d+)", prompt)[1])
    return float(re.search(r"Answer:\s*(.*)", prompt)[1].strip(" .\n") == CAPITALS[number])


class Here:
    """A pool that spares the process: what is tested is the bench, and the sources are those above."""

    async def grade(self, source, *, sample, item):
        value, error = read_result(json.dumps(graded(source, sample, item)).encode() + b"\n")
        return Ran(value=value, error=error)


SHAPE = "return float(set(json.loads(sample['output_text'])) == {'city', 'sure'})"

CASES = {
    "experts_disagree": (EQ, data(("<right>", [1, 0]), ("<wrong>", [0, 0]), ("<right>", [0, 1]), ("x", [1, 0]))),
    "no_labels": (EQ, list(rows.of_tree({"item": {"answer": "a"}, "samples": ["a", "b"]}, "row"))),
    "few_labels": (EQ, PLAIN[:8]),
    "disagrees": (EQ, data(("<right>", 1), ("<wrong>", 0), ("The city of <right>", 1), ("<right>, that is", 1))),
    "inverted": (check(operation="ne"), PLAIN),
    "constant": (check(input="x", reference="x"), PLAIN),
    "solved": (EQ, data(("<right>", 1), ("<right>", 1), ("<right>", 1))),
    "hopeless": (EQ, data(("It is <right>", 1), ("<wrong>", 0), ("So it's <right>", 1))),
    "few_useful_groups": (EQ, data(("<wrong>", 0), ("<wrong>", 0))[4:] + data(("<right>", 1), ("<right>", 1))[:8]),
    "no_samples_per_prompt": (EQ, data(("<right>", 1))[:6] + data(("<wrong>", 0))[6:]),
    "unstable": (python("return random.random()"), PLAIN),
    "order_bias": (JUDGE, PLAIN, lambda text: float(text.index("Answer:") < text.index("Question:")) or right(text)),
    "edit_bias": (JUDGE, PLAIN, lambda text: float("Answer: \n" not in text and right(text))),
    "pays_empty": (check(operation="ne", reference="no idea"), PLAIN[::4] + PLAIN[3::4]),
    "pays_refusal": (multi("max(exact, sorry)", exact=EQ, sorry=check(operation="like", reference="sorry")), PLAIN),
    "pays_copying": (similar(reference="{{ item.question }}"), PLAIN),
    "pays_stuffing": (check(operation="ilike"), data(("It is <right>.", 1), ("It is <wrong>.", 0))),
    "pays_all_labels": (check(operation="like"), data(("It is <right>.", 1), ("It is <wrong>.", 0))),
    "pays_length": (python("return min(1.0, len(sample['output_text']) / 1000)"), PLAIN),
    "pays_nonsense": (python(SHAPE), JSON[2::3] + JSON[::3]),
    "pays_injection": (JUDGE, PLAIN, lambda text: 1.0 if "perfect" in text else right(text)),
    "pays_exceptions": (multi("1 - wrong", wrong=python(CITY.replace("==", "!="))), JSON[0::3] + JSON[1::3]),
    "unscored": (check(reference="{{ item.solution }}"), PLAIN),
    "errors": (python(CITY), data(('{"city": "<right>"}', 1), ("It is <wrong>", 0), ("It is <right>", 1))),
    "missing_field": (check(reference="{{ item.solution }}"), PLAIN),
    "sparse_field": (check(reference="{{ item.extra }}"), PLAIN + data(("x", 1), extra="x")[:3]),
    "ignores_sample": (multi("0.5 * a + 0.5 * b", a=EQ, b=check(input="{{ item.answer }}")), PLAIN),
    "reversed_contains": (check(input="{{ item.answer }}", reference=TEXT, operation="like"), PLAIN),
    "unused_grader": (multi("a", a=EQ, b=similar()), PLAIN),
    "leaves_range": (multi("a + b", a=EQ, b=similar()), PLAIN),
    "formula_fault": (multi("0.5 * a / b", a=EQ, b=similar()), PLAIN),
    "failing_pays": (multi("1 - p", p=python("return float(sample['output_text'] != item['answer'])")), PLAIN),
    "outvotes_correctness": (multi("0.3 * a + 0.7 * b", a=EQ, b=check(operation="like", reference=" ")), PLAIN),
    "same_grader_twice": (multi("0.5 * a + 0.5 * b", a=EQ, b=EQ), PLAIN),
    "unformatted_json": (check(input="{{ sample.output_json.city }}"), JSON),
    "runs_the_sample": (python("return float(eval(sample['output_text']) == item['answer'])"), PLAIN),
    "random_source": (python("return (sample['output_text'] == item['answer']) + 0.001 * random.random()"), PLAIN),
    "hosted_limit": (python("return len(sample['trajectory']['turns'])"), PLAIN),
}  # fmt: skip
"""Kind of finding -> a grader that has it, the samples that show it, and for judges what they answer."""


@pytest.fixture(scope="module")
def server():
    made = Server()
    yield made
    made.close()


@pytest.fixture
def bench(server):
    """The report on grader JSON and rows; `judge` answers prompts where the grader asks a model."""

    def run(tree, labelled, judge=right, *, drawn=None, **options):
        server.answer = prompted(judge)
        services = Services(
            pool=Here(),
            judge=Judge(JudgeConfig(base_url=server.url, retries=0)),
        )
        made = Grader(tree if not isinstance(tree, dict) else parse(tree), settings=Settings(), services=services)
        chosen = Options(repeated=6, probed=2, repeats=2, **options)
        return asyncio.run(examine(made, labelled, drawn=drawn, options=chosen))

    return run


@pytest.mark.parametrize(
    ("name", "verdict", "kinds"),
    [
        ("good", "go", set()),
        ("disagrees", "fix these", {"inverted"}),
        ("gameable", "fix these", {"pays_stuffing", "pays_all_labels"}),
        ("solved", "don't use RFT for this", {"solved"}),
    ],
)
def test_bundled_examples_get_the_right_verdict_for_the_right_reasons(bench, name, verdict, kinds):
    folder = BUNDLES / name
    samples = folder / "samples.jsonl"
    drawn = rows.read(samples) if samples.exists() else None
    report = bench(load(folder / "grader.json"), rows.read(folder / "labelled.jsonl"), drawn=drawn)
    assert (report.verdict, {finding.kind for finding in report.findings}) == (verdict, kinds)


@pytest.mark.parametrize("kind", CASES)
def test_a_bad_grader_is_caught_by_name(bench, kind):
    report = bench(*CASES[kind])
    found = {finding.kind: finding for finding in report.findings}
    assert kind in found
    assert found[kind].said
    expected = {"note": "go", "fix": "fix these", "stop": "don't use RFT for this"}
    order = list(expected.values())
    assert order.index(report.verdict) >= order.index(expected[KINDS[kind]])


def test_every_kind_of_finding_has_a_grader_that_shows_it():
    assert set(CASES) == set(KINDS)


def test_an_honest_judge_passes(bench):
    report = bench(JUDGE, PLAIN)
    assert report.verdict == "go"
    assert {finding.kind for finding in report.findings} == {"hosted_limit"}
    assert (report.stability.order, report.stability.edits, report.stability.noise) == (0.0, 0.0, 0.0)


def test_probes_are_held_against_an_honest_failure(bench):
    report = bench(CASES["pays_stuffing"][0], CASES["pays_stuffing"][1])
    assert report.honest_failure == 0.0
    earned = {probe.kind: probe.reward for probe in report.probes}
    assert (earned["stuffing"], earned["empty"], earned["refusal"]) == (1.0, 0.0, 0.0)


def test_a_copied_reference_counts_only_where_the_model_could_see_it(bench):
    hidden = bench(EQ, PLAIN)
    assert "pays_copying" not in {finding.kind for finding in hidden.findings}
    question = "Repeat: the quick brown fox jumps over it"
    seen = [
        row
        for i in range(8)
        for row in rows.of_tree(
            {
                "item": {
                    "messages": [{"role": "user", "content": f"{question} {i}"}],
                    "answer": "the quick brown fox jumps over it",
                },
                "samples": [{"sample": "something else", "label": 0}, {"sample": "a summary", "label": 1}],
            },
            "row",
        )
    ]
    assert "pays_copying" in {finding.kind for finding in bench(similar(), seen).findings}


def test_experts_that_agree_are_reported_pair_by_pair(bench):
    report = bench(EQ, data(("<right>", [1, 1]), ("<wrong>", [0, 0]), ("x", [0, 0])))
    assert report.experts["expert 1, expert 2"].of.value == 1.0
    assert report.verdict == "go"


def test_a_failure_that_a_grader_can_not_read_is_no_error_of_the_grader(bench):
    calls = [{"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}]
    called = check(input="{{ sample.output_tools[0].function.name }}", reference="look")
    labelled = [
        row
        for i in range(10)
        for row in rows.of_tree(
            {
                "item": {"messages": [{"role": "user", "content": f"Look up {i}."}]},
                "samples": [
                    {"sample": {"output_text": "", "output_tools": calls}, "label": 1},
                    {"sample": "I don't know.", "label": 0},
                ],
            },
            "row",
        )
    ]
    report = bench(called, labelled)
    assert (report.verdict, list(report.findings)) == ("go", [])


def test_the_cost_is_of_the_job_that_was_named(bench):
    job = Job(rows=100, epochs=2, group=8, validation_rows=10, evaluations=5)
    assert (job.rollouts, job.grades) == (1600, 1650)
    report = bench(JUDGE, PLAIN, job=job)
    assert report.cost.grades == 1650
    assert report.cost.tokens_each == 25
    assert report.cost.hosted_judge_tokens == 25 * 1650
    assert report.cost.hosted_money == pytest.approx(1600 * 731 / 510 / 3600 * 100)


def test_a_report_is_json(bench):
    tree = json.loads(json.dumps(bench(EQ, PLAIN).as_dict()))
    assert (tree["verdict"], tree["findings"], tree["samples"]) == ("go", [], 48)
    assert len(tree["grader_hash"]) == 64
    assert tree["signal"]["useful"]["8"] > 0.9
