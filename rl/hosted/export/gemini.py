"""Gemini's reinforcement tuning: rows of contents with references, a tuning job, and a scorer for Cloud Run.

Checked against the quick start of reinforcement tuning and the types of the google-genai client (2026): the spec of
the job, the row, that references are texts. What Cloud Run is sent was not to be found in public: `main.py` says what
it reads, and has to be held against the service's own page.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rewards.bench.lint import range_of
from rl.hosted import auto
from rl.hosted.export.files import Project, Row, item_of, text_of, with_system, write, write_scoring

MAIN = '''"""The scorer, for Cloud Run. The names of fields in a request are to be checked: see the report."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from scoring import scores


def reward(request):
    """The score of one response to one example."""
    row = request.get("example", request)
    references = row.get("references", {})
    item = {name: read(text) for name, text in references.items()}
    said = request.get("response", request.get("sample_response", ""))
    (value,) = scores([(item, {"role": "assistant", "content": said})])
    return {"reward": 0.0 if value is None else max(-1.0, min(1.0, value))}


def read(text):
    """What a reference was before it had to be a text."""
    return json.loads(text[5:]) if text.startswith("json:") else text


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        body = json.dumps(reward(request)).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), Handler).serve_forever()
'''


def gemini(project: Project, folder: Path) -> list[str]:
    """`train.jsonl`, `valid.jsonl`, `tuning_job.json` and `main.py` with what it needs."""
    write(folder, "train.jsonl", [_row(row) for row in project.train])
    write(folder, "valid.jsonl", [_row(row) for row in project.valid])
    write(folder, "tuning_job.json", _job(project))
    write_scoring(project, folder)
    write(folder, "main.py", MAIN)
    rows = (*project.train, *project.valid)
    lost = [
        "the request that Cloud Run is sent could not be checked: hold the names in main.py against the service's page",
        "a sample that could not be graded scores 0",
        "eval_samples has no counterpart",
    ]
    low, high = range_of(project.grader)
    if not -1 <= low <= high <= 1:
        lost.append(f"the grader's scores go from {low:g} to {high:g} as far as can be seen; rewards end at -1 and 1")
    if any(row.get("tools") for row in rows):
        lost.append("tools of rows are left out")
    if any(m["role"] == "tool" or m.get("tool_calls") for row in rows for m in row["messages"]):
        lost.append("calls and tool messages in prompts are left out")
    if project.job.response_format is not None:
        lost.append("response_format is only graded, not enforced")
    return lost


def _row(row: Row) -> dict[str, Any]:
    messages = with_system(row["messages"])
    system = "\n".join(text_of(m.get("content")) for m in messages if m["role"] == "system")
    roles = {"user": "user", "assistant": "model"}
    contents = [
        {"role": roles[m["role"]], "parts": [{"text": text_of(m.get("content"))}]}
        for m in messages
        if m["role"] in roles and not m.get("tool_calls")
    ]
    found: dict[str, Any] = {"contents": contents, "references": _references(item_of(row))}
    return {"systemInstruction": {"parts": [{"text": system}]}, **found} if system else found


def _references(item: Row) -> dict[str, str]:
    """Every field as a text; what is none is written as JSON behind a mark, and so is a text that has the mark."""
    plain = {k: v for k, v in item.items() if isinstance(v, str) and not v.startswith("json:")}
    return {k: plain[k] if k in plain else "json:" + json.dumps(v, ensure_ascii=False) for k, v in item.items()}


def _job(project: Project) -> dict[str, Any]:
    asked = project.asked
    return {
        "tunedModelDisplayName": project.body.suffix or project.name,
        "baseModel": "gemini-3.5-flash",
        "reinforcementTuningSpec": {
            "trainingDatasetUri": "gs://BUCKET/train.jsonl",
            "validationDatasetUri": "gs://BUCKET/valid.jsonl",
            "hyperParameters": {
                "epochCount": asked.n_epochs,
                "learningRateMultiplier": asked.learning_rate_multiplier,
                "samplesPerPrompt": auto.group(float(asked.compute_multiplier)),
                "batchSize": asked.batch_size,
                "evaluateInterval": asked.eval_interval,
                "checkpointInterval": asked.eval_interval,
                "thinkingLevel": "MINIMAL" if asked.reasoning_effort == "low" else "HIGH",
            },
            "singleRewardConfig": {
                "rewardName": project.grader.name,
                "parseResponseConfig": {"parseType": "IDENTITY"},
                "cloudRunRewardScorer": {"cloudRunUri": "https://SERVICE.run.app"},
            },
        },
    }
