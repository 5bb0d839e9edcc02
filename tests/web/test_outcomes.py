import dataclasses

from libraries.web.outcomes import Outcome, summary


def test_summary_counts_by_reason() -> None:
    ok = Outcome("a", "http://a/1", "ok", "downloaded")
    later = Outcome("a", "http://a/2", "passing", "time-out")
    lost = Outcome("a", "http://a/3", "failed", "not found")
    outcomes = [later, lost, ok, later, later, dataclasses.replace(lost, reason="broken answer")]
    expected = [("downloaded", 1), ("time-out", 3), ("broken answer", 1), ("not found", 1)]
    assert list(summary(outcomes).items()) == expected
    assert summary([]) == {}
