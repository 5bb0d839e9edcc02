"""The queue that is made anew in another thread, while a person goes on answering."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from libraries.base.errors import PipelineError
from libraries.base.layout import Layout

if TYPE_CHECKING:
    from libraries.evaluation.renewal import Renewal
    from libraries.network.runners import RunOptions


@dataclass
class Renewing:
    """A queue that is being made in another thread.

    Attributes:
        result: the queue, or why there is none; None until then, and once it was taken.
    """

    is_running: bool = False
    result: "Renewal | str | None" = None

    def run(self, renew: "Callable[[], Renewal]") -> None:
        """Make it."""
        try:
            self.result = renew()
        except PipelineError as error:
            self.result = str(error)
        except Exception as error:
            self.result = f"The list could not be made: unexpected {type(error).__name__}"
            raise
        finally:
            self.is_running = False


def renewed(layout: Layout, run: "RunOptions", seed: int) -> "Renewal":
    """See `renewal.renew`, whose modules are loaded when it is first asked for."""
    from libraries.evaluation.renewal import renew

    return renew(layout, run, seed=seed)
