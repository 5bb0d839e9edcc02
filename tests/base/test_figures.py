"""The look of all pictures."""

from libraries.base import figures


def test_long_names_keep_both_ends() -> None:
    assert figures.short_name("German shepherd, adult, sitting") == "German shep…t, sitting"
    assert len(figures.short_name("German shepherd, adult, sitting")) == 22
