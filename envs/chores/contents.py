"""Chores that read and change what is in files."""

from __future__ import annotations

import json
import random
from collections import Counter

from envs.chores.chore import WORDS, Chore, lines


def _settings(rng: random.Random) -> Chore:
    """A key to be set in one section, where another has it too."""
    mine, other = rng.sample(["server", "client", "cache", "worker"], 2)
    key, old, new = rng.choice(["port", "timeout", "retries"]), rng.randint(10, 99), rng.randint(100, 999)
    name = rng.choice(["settings.ini", "etc/app.ini", "conf/service.ini"])
    sections = [(mine, old), (other, old), ("paths", None)]
    rng.shuffle(sections)

    def text(value: int) -> str:
        made = ""
        for section, number in sections:
            made += f"[{section}]\nname = {section}-{old}\n"
            made += "" if number is None else f"{key} = {value if section == mine else number}\n"
        return made

    return Chore(
        text=f"In {name}, set {key} to {new} in the section {mine}, and nowhere else.",
        files={name: text(old)},
        goal={name: text(new)},
        command=rf"sed -i '/^\[{mine}\]/,/^\[/ s/^{key} = .*/{key} = {new}/' {name}",
        wrong=f"sed -i 's/^{key} = .*/{key} = {new}/' {name}",
    )


def _extract(rng: random.Random) -> Chore:
    """Lines of one host with one kind of status, among hosts whose names begin alike."""
    host, status, name = f"node{rng.randint(1, 9)}", rng.choice("45"), rng.choice(["failed.log", "bad.txt", "out.log"])
    made = [(host, f"{status}0{rng.randint(0, 4)}"), (f"{host}1", f"{status}00"), (host, "200")]
    made += [
        (rng.choice([host, f"{host}1", "edge"]), rng.choice(["200", "302", "404", "500", "503"])) for _ in range(12)
    ]
    rng.shuffle(made)
    log = [f"{8 + n:02d}:{rng.randint(0, 59):02d} {h} GET /{rng.choice(WORDS)} {s}\n" for n, (h, s) in enumerate(made)]
    mine = [line for line, (h, s) in zip(log, made, strict=True) if h == host and s.startswith(status)]
    source = {"access.log": "".join(log)}
    return Chore(
        text=f"Write the lines of access.log about the host {host} that end with a status of {status}00 or more, up to "
        f"{status}99, into {name}, in their order.",
        files=source,
        goal=source | {name: "".join(mine)},
        command=f"grep ' {host} ' access.log | grep ' {status}[0-9][0-9]$' > {name}",
        wrong=f"grep '{host}' access.log | grep ' {status}[0-9][0-9]$' > {name}",
    )


def _join(rng: random.Random) -> Chore:
    """Parts in the order of their numbers, which is not that of their names."""
    count, name = rng.randint(10, 14), rng.choice(["whole.txt", "book.txt", "all.txt"])
    parts = {f"parts/part-{n}.txt": f"{n}: {lines(rng, 1, 2)}" for n in range(1, count + 1)}
    return Chore(
        text=f"Join the files under parts into {name}, in the order of their numbers from 1 to {count}.",
        files=parts,
        goal=parts | {name: "".join(parts.values())},
        command=f"for n in $(seq 1 {count}); do cat parts/part-$n.txt; done > {name}",
        wrong=f"cat parts/*.txt > {name}",
    )


def _replace(rng: random.Random) -> Chore:
    """A word, where longer words contain it, and in some files alone."""
    old, new, *others = rng.sample(WORDS, 6)
    pages = {f"docs/{name}.md": f"{lines(rng)}the {old} and the {old}s, {old}.\n" for name in others[:3]}
    kept = {f"docs/archive/{others[3]}.md": f"the {old} of old\n", "docs/list.txt": f"{old}\n"}

    def changed(text: str) -> str:
        return "\n".join(
            " ".join(new + word[len(old) :] if word.rstrip(".,") == old else word for word in line.split(" "))
            for line in text.split("\n")
        )

    return Chore(
        text=f"In the .md files right in docs, replace the word {old} by {new}, only where it is a whole word. Files "
        "in directories below docs stay as they are.",
        files=pages | kept,
        goal={path: changed(text) for path, text in pages.items()} | kept,
        command=rf"sed -i 's/\b{old}\b/{new}/g' docs/*.md",
        wrong=f"sed -i 's/{old}/{new}/g' docs/*.md",
    )


def _missing(rng: random.Random) -> Chore:
    """Lines of one list that are not in another, where some only begin alike."""
    words = rng.sample(WORDS, 12)
    everything = [*words[:9], *(f"{word} two" for word in words[:4])]
    rng.shuffle(everything)
    done = [*words[:3], *words[9:]]
    files = {"all.txt": "".join(f"{e}\n" for e in everything), "done.txt": "".join(f"{d}\n" for d in done)}
    name = rng.choice(["open.txt", "left.txt", "todo.txt"])
    left = "".join(f"{entry}\n" for entry in everything if entry not in done)
    return Chore(
        text=f"Write the lines of all.txt that are not lines of done.txt into {name}, in their order.",
        files=files,
        goal=files | {name: left},
        command=f"grep -vxFf done.txt all.txt > {name}",
        wrong=f"grep -vFf done.txt all.txt > {name}",
    )


def _totals(rng: random.Random) -> Chore:
    """Sums by group of some of the rows."""
    status, name = rng.choice(["paid", "open"]), rng.choice(["totals.csv", "sums.csv"])
    rows = [("paid", "open")[n % 2] for n in range(rng.randint(8, 14))]
    made = [(rng.choice(WORDS[:5]), s, rng.randint(1, 90)) for s in rows]
    sums = Counter[str]()
    for who, said, amount in made:
        if said == status:
            sums[who] += amount
    files = {"data/sales.csv": "who,status,amount\n" + "".join(f"{w},{s},{a}\n" for w, s, a in made)}

    def summed(chosen: str, line: str) -> str:
        each = f'$(($(grep "^$who,{line}" data/sales.csv | cut -d, -f3 | paste -sd+)))'
        who = f"$(tail -n +2 data/sales.csv | grep '{chosen}' | cut -d, -f1 | sort -u)"
        return f'for who in {who}; do echo "$who,{each}"; done > {name}'

    return Chore(
        text=f"Write into {name} a line `who,sum` for everybody who has rows with status {status} in data/sales.csv, "
        "with the sum of the amounts of those rows, in alphabetical order and without a head.",
        files=files,
        goal=files | {name: "".join(f"{who},{sums[who]}\n" for who in sorted(sums))},
        command=summed(f",{status},", f"{status},"),
        wrong=summed(",", ""),
    )


BUILD = """import json, pathlib

manifest = json.loads(pathlib.Path("project/manifest.json").read_text())
parts = [pathlib.Path("project/src", name).read_text() for name in manifest["parts"]]
pathlib.Path("project/dist").mkdir(exist_ok=True)
pathlib.Path("project/dist/bundle.txt").write_text(f"# {manifest['name']} {manifest['version']}\\n" + "".join(parts))
"""


def _build(rng: random.Random) -> Chore:
    """A build that fails for a name that is spelt wrong."""
    names = [f"{word}.txt" for word in rng.sample(WORDS, 4)]
    slip = f"{names[1][:2]}{names[1][3:]}"
    manifest = {"name": rng.choice(WORDS), "version": f"{rng.randint(1, 5)}.{rng.randint(0, 9)}"}
    right = json.dumps(manifest | {"parts": names}, indent=1) + "\n"
    sources = {f"project/src/{name}": lines(rng) for name in names} | {"project/build.py": BUILD}
    bundle = f"# {manifest['name']} {manifest['version']}\n" + "".join(sources[f"project/src/{name}"] for name in names)
    return Chore(
        text="`python3 project/build.py` fails, since a name is spelt wrong in project/manifest.json. Mend it there, "
        "and build.",
        files=sources | {"project/manifest.json": right.replace(names[1], slip)},
        goal=sources | {"project/manifest.json": right, "project/dist/bundle.txt": bundle},
        command=f"sed -i 's/{slip}/{names[1]}/' project/manifest.json && python3 project/build.py",
        wrong=f"cp project/src/{names[1]} project/src/{slip} && python3 project/build.py",
    )


PLAIN = (_settings, _extract, _join, _replace, _missing)
CONTENTS = (*PLAIN, _totals, _build)
