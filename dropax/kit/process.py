"""What processes and threads may share: a fork is refused JAX, and threads take turns.

JAX hangs in a process that was forked from one that had used it.
"""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

Method = TypeVar("Method", bound=Callable[..., Any])


class Process:
    """Whether this process was forked from one that had used JAX."""

    forked = False

    @classmethod
    def require_own(cls) -> None:
        """Raises a RuntimeError in such a process, where JAX would hang."""
        if cls.forked:
            raise RuntimeError(
                "JAX was used before this process was forked, and hangs in a forked process. Start "
                "workers by spawn: multiprocessing_context='spawn' for a torch DataLoader, "
                "multiprocessing.get_context('spawn') elsewhere."
            )

    @classmethod
    def fork(cls) -> None:
        """Notes, in the child, that the process was forked."""
        # A private name, as JAX does not tell whether it was used; a test notices if it goes.
        backends = getattr(sys.modules.get("jax._src.xla_bridge"), "_backends", None)
        cls.forked = cls.forked or bool(backends)


if hasattr(os, "register_at_fork"):  # not on Windows, which only spawns
    os.register_at_fork(after_in_child=Process.fork)


def atomic(method: Method) -> Method:
    """Lets one thread at a time through the methods that read an object's state and replace it.

    Else two threads could draw from one step. The object holds the `_lock`, and a thread that has
    it may call further methods.
    """

    @functools.wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        Process.require_own()
        with self._lock:
            return method(self, *args, **kwargs)

    return cast(Method, run)
