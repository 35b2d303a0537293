"""When may a Prefect task's result be used again: cache policies with this package's fingerprints.

::

    from prefect import task
    from prefect.cache_policies import TASK_SOURCE
    from prefect_cache import CodeAndGlobals, DataFrameInputs, cached

    @task(cache_policy=DataFrameInputs() + TASK_SOURCE, result_serializer="arrow")
    def clean(orders: pd.DataFrame, limit: int) -> pd.DataFrame: ...

    @cached                     # all of it: inputs by content, code with all that it reaches, Arrow results
    def model(orders: pd.DataFrame) -> Model: ...

Prefect's own ``INPUTS`` gives frames with their columns in another order the same key, and equal frames that were
built another way different ones; ``TASK_SOURCE`` sees neither helpers nor what a closure captured. These
policies look at each input in full, and at all the code that a task can reach.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from prefect.cache_policies import CachePolicy, CompoundCachePolicy

from .errors import Unfingerprintable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prefect import Task
    from prefect.context import TaskRunContext

P = ParamSpec("P")
R = TypeVar("R")


@dataclass
class DataFrameInputs(CachePolicy):
    """The same task with equal inputs.

    Frames are equal where values, columns and their order, dtypes, index, names and attributes are; how they were
    put together does not matter. So it is for arrays, Arrow and polars tables, containers, dataclasses, instances,
    functions.

    ``DataFrameInputs() - "connection"`` leaves an argument out. In a sum, put this policy first: Prefect's own
    sums forget a ``-`` that is not for its own ``Inputs``.

    Attributes
    ----------
    exclude
        Arguments that do not matter to the result.
    """

    exclude: list[str] = field(default_factory=list)

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],  # noqa: ARG002  Prefect's signature
        **_: object,
    ) -> str | None:
        """Return the digest of the task's identity and of each argument.

        Raises
        ------
        Unfingerprintable
            Where an argument has no digest. Prefect then logs the message, and runs the task without caching it.
        """
        from .digests import combine

        digests = [
            text for name in sorted(set(inputs) - set(self.exclude)) for text in (name, _digest(name, inputs[name]))
        ]
        return combine("inputs", *_identity(task_ctx), *digests)

    def __sub__(self, other: str) -> CachePolicy:
        if not isinstance(other, str):
            raise TypeError("Only an argument's name can be left out of a cache policy.")
        return replace(self, exclude=[*self.exclude, other])

    def __add__(self, other: CachePolicy) -> CachePolicy:
        return _sum(super().__add__(other))


@dataclass
class CodeAndGlobals(CachePolicy):
    """The same code: of the task's function and of all that it can reach.

    Functions, methods and classes that it calls, transitively, with their defaults, with the values that closures
    captured and the globals that are read; modules of the user's own by their source, installed packages by version.
    Comments and formatting do not matter.
    """

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],  # noqa: ARG002  Prefect's signature
        flow_parameters: dict[str, Any],  # noqa: ARG002  Prefect's signature
        **_: object,
    ) -> str | None:
        """Return the digest of the task's function with all that it reaches.

        Raises
        ------
        Unfingerprintable
            Where it reaches a value that has no digest. Prefect then logs the message, and runs the task
            without caching it.
        """
        from .cells.fingerprint import fingerprint
        from .digests import combine

        function = task_ctx.task.fn
        return combine("code", fingerprint(function, getattr(function, "__globals__", None)))

    def __add__(self, other: CachePolicy) -> CachePolicy:
        return _sum(super().__add__(other))


@dataclass
class _Sum(CompoundCachePolicy):
    """Prefect's sum of policies, which passes ``- "name"`` on to ours as well."""

    def __sub__(self, other: str) -> CachePolicy:
        summed = _sum(super().__sub__(other))
        policies = [p - other if isinstance(p, DataFrameInputs) else p for p in summed.policies]
        return replace(summed, policies=policies)

    def __add__(self, other: CachePolicy) -> CachePolicy:
        return _sum(super().__add__(other))


def _sum(policy: CachePolicy) -> _Sum:
    policies = policy.policies if isinstance(policy, CompoundCachePolicy) else [policy]
    return _Sum(
        policies=policies,
        key_storage=policy.key_storage,
        isolation_level=policy.isolation_level,
        lock_manager=policy.lock_manager,
    )


def _identity(context: TaskRunContext) -> Sequence[str]:
    """Return what tells one task from another, the same in every process."""
    function = context.task.fn
    return (getattr(function, "__module__", ""), getattr(function, "__qualname__", ""), context.task.name)


def _digest(name: str, value: object) -> str:
    from .cells.fingerprint import fingerprint

    try:
        return fingerprint(value)
    except Unfingerprintable as error:
        remedy = f'leave it out of the key with DataFrameInputs() - "{name}"'
        raise Unfingerprintable(f"argument {name!r}: {error.message}; {remedy}", name=name, remedy=remedy) from error


@overload
def cached(function: Callable[P, R], /) -> Task[P, R]: ...


@overload
def cached(*, exclude: Sequence[str] = (), **options: Any) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def cached(
    function: Callable[P, R] | None = None,
    /,
    *,
    exclude: Sequence[str] = (),
    **options: Any,
) -> Task[P, R] | Callable[[Callable[P, R]], Task[P, R]]:
    """Make a function a Prefect task that is run once for each content of its inputs and each state of its code.

    Parameters
    ----------
    function
        The function; the decorator may be used with and without parentheses.
    exclude
        Arguments that do not matter to the result, such as connections.
    **options
        All else that ``prefect.task`` takes, for example ``retries=2``; they go before what is set here.

    Returns
    -------
    prefect.Task
        Called, it returns what the function returned, frames among it restored from Arrow files. Where an argument has
        no digest, Prefect's log says so, and the function runs each time.

    Examples
    --------
    >>> @cached(exclude=["connection"], retries=2)  # doctest: +SKIP
    ... def orders(connection, year): ...
    """
    from prefect import task

    from . import serializers  # noqa: F401  Prefect knows "arrow" when it is imported

    ours = {
        "cache_policy": DataFrameInputs(exclude=list(exclude)) + CodeAndGlobals(),
        "persist_result": True,
        "result_serializer": "arrow",
    }
    decorate = task(**{**ours, **options})
    return decorate if function is None else decorate(function)
