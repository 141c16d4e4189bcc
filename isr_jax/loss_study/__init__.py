"""The loss study: by which loss does a generator learn most?

`loop` takes a config to a report, `runs` trains the seeds of a candidate at once, `comparison` says
with which confidence one candidate is ahead of another, `results` sums up, `report` shows it.
"""

from isr_jax.loss_study.loop import StudyResult, study

__all__ = ["StudyResult", "study"]
