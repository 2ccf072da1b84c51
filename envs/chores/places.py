"""Chores that find, move and remove files."""

from __future__ import annotations

import random

from envs.chores.chore import WORDS, Chore, lines


def _found(rng: random.Random) -> Chore:
    """The files in which a word stands, and not a longer one."""
    word, name = rng.choice(["ERROR", "WARN", "FATAL"]), rng.choice(["report.txt", "found.txt", "hits.txt"])
    paths = [f"logs/{place}{other}.log" for place in ("", "old/") for other in rng.sample(WORDS, 4)]
    marks = [word, word, f"{word}S", "", "INFO", word.lower(), "", "INFO"]
    rng.shuffle(marks)
    files = {path: f"{lines(rng)}{mark} at {rng.randint(1, 9)}\n" for path, mark in zip(paths, marks, strict=True)}
    mine = sorted(path for path, mark in zip(paths, marks, strict=True) if mark == word)
    return Chore(
        text=f"Write the paths of the files under logs in which the word {word} stands, in capitals and as a whole "
        f"word, into {name}: one a line, as in logs/old/x.log, sorted.",
        files=files,
        goal=files | {name: "".join(f"{path}\n" for path in mine)},
        command=f"grep -rlw {word} logs | sort > {name}",
        wrong=f"grep -rl {word} logs | sort > {name}",
    )


def _renamed(rng: random.Random) -> Chore:
    """Another ending, but not below."""
    old, new = rng.choice([("JPG", "jpg"), ("htm", "html"), ("jpeg", "jpg"), ("text", "txt")])
    names = rng.sample(WORDS, 8)
    top = {f"album/{name}.{old}": lines(rng) for name in names[:4]}
    kept = {
        f"album/{names[4]}.{new}": lines(rng),
        f"album/raw/{names[5]}.{old}": lines(rng),
        f"{names[6]}.{old}": "x\n",
    }
    return Chore(
        text=f"Rename the files right in album that end in .{old} so that they end in .{new}. Those in album/raw stay.",
        files=top | kept,
        goal={path.removesuffix(old) + new: text for path, text in top.items()} | kept,
        command=f'for f in album/*.{old}; do mv "$f" "${{f%.{old}}}.{new}"; done',
        wrong=f'find album -name \'*.{old}\' | while read -r f; do mv "$f" "${{f%.{old}}}.{new}"; done',
    )


def _sorted(rng: random.Random) -> Chore:
    """Into directories by ending."""
    endings = rng.sample(["txt", "csv", "md", "log"], 3)
    names = rng.sample(WORDS, 7)
    inbox = {f"inbox/{name}.{endings[n % 3]}": lines(rng) for n, name in enumerate(names)}
    return Chore(
        text="Move each file in inbox into the directory sorted/ENDING, where ENDING is what is behind the dot in its "
        "name.",
        files=inbox,
        goal={f"sorted/{path.rpartition('.')[2]}/{path[6:]}": text for path, text in inbox.items()},
        command='for f in inbox/*; do mkdir -p "sorted/${f##*.}"; mv "$f" "sorted/${f##*.}/"; done',
        wrong='for f in inbox/*; do mkdir -p "sorted/${f##*.}"; cp "$f" "sorted/${f##*.}/"; done',
    )


def _twice(rng: random.Random) -> Chore:
    """All but the first of the files with the same content."""
    names = sorted(rng.sample(WORDS, 8))
    texts = [lines(rng, 1, 2) for _ in range(4)]
    content = [*texts, *rng.choices(texts, k=4)]
    rng.shuffle(content)
    pool = {f"pool/{name}.txt": text for name, text in zip(names, content, strict=True)}
    first = {text: path for path, text in reversed(pool.items())}

    def loop(order: str) -> str:
        inner = f'for g in {order}; do [ "$g" = "$f" ] && break; if cmp -s "$g" "$f"; then rm "$f"; break; fi; done'
        return f"for f in {order}; do {inner}; done"

    return Chore(
        text="Of the files in pool with the same content keep the one whose name comes first in the alphabet, and "
        "delete the others.",
        files=pool,
        goal={path: text for text, path in first.items()},
        command=loop("pool/*.txt"),
        wrong=loop("$(ls -r pool/*.txt)"),
    )


def _cleaned(rng: random.Random) -> Chore:
    """Empty files, but not those that are there to be empty."""
    names = rng.sample(WORDS, 8)
    marker = rng.choice([".keep", ".gitkeep"])
    kept = {f"cache/{names[0]}.tmp": lines(rng), f"cache/{names[1]}/{marker}": "", f"{names[2]}.tmp": ""}
    gone = {f"cache/{name}.tmp": "" for name in names[3:6]} | {f"cache/{names[1]}/{names[6]}.txt": ""}
    return Chore(
        text=f"Delete the empty files under cache, but none that is called {marker}.",
        files=kept | gone,
        goal=kept,
        command=f"find cache -type f -empty ! -name {marker} -delete",
        wrong="find cache -type f -empty -delete",
    )


PLACES = (_found, _renamed, _sorted, _twice, _cleaned)
