"""Arms that differ in what they name and in nothing else, over seeds, and what that shows.

    plan.py       one YAML -> the runs of every arm and seed, or why they could not be compared
    conduct.py    the runs, one after another, each a child process; what was done before is not done again
    results.py    the records of a run -> its numbers
    kept.py       those numbers in a file beside the run, for when its records are gone
    credits.py    where in an episode the credit went
    findings.py   arms against the reference: pure statistics
    report.py     findings in words and tables; figures.py, page.py: how they look

The report is made of records alone, by `rft ablate CONFIG --report-only`.
"""
