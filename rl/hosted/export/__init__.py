"""A project written out for other trainers, with a report of what they can't express.

One file a target. Each writes its files into a folder and returns its losses, one line each; what every target loses
in the same way is found here. Graders go along as they are: where a target runs Python of the user's, the exported
`scoring.py` runs `grader.json` with this package, and scores what it scores here.
"""

from rl.hosted.export.files import Project, of_bundle
from rl.hosted.export.targets import TARGETS, export

__all__ = ["TARGETS", "Project", "export", "of_bundle"]
