"""Independent pieces of work on a Dask cluster: processes of this machine, or machines that share the study's folder.

Dask decides where a piece runs and repeats it when its worker dies; nothing here schedules. A piece leaves its result
on the shared disk, or returns it; either way it has the bits that this process would have made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from pertstack._base.errors import InputError, IntegrityError, NeedsExtraError, StackingError, first_few, unknown_name
from pertstack._base.version import __version__

T = TypeVar("T")
WAIT = 60
"""Seconds to wait for a scheduler to answer, and for its first worker."""


@dataclass(frozen=True)
class Cluster:
    """Where pieces run: the scheduler at ``address``, or ``workers`` fresh processes of this machine."""

    workers: int = 1
    address: str | None = None

    @classmethod
    def of(cls, engine: str, workers: int, address: str | None) -> Cluster | None:
        """The cluster that a user asks for; None for engine 'local'.

        Parameters
        ----------
        engine : 'local' or 'dask'.
        workers : processes of this machine, if there is no address.
        address : of a running scheduler, such as ``tcp://HOST:8786``.

        Raises
        ------
        UnknownNameError, InputError
            Another engine; an address without the engine that has one.
        """
        if engine not in ("local", "dask"):
            raise unknown_name("engine", engine, ("local", "dask"))
        if engine == "local" and address is not None:
            raise InputError(f"The address {address} is that of a Dask scheduler: add --engine dask, or leave it out.")
        return cls(workers, address) if engine == "dask" else None

    def each(self, work: Callable[[Any, T], Any], shared: Any, items: Sequence[T]) -> Iterator[tuple[T, Any]]:
        """``(item, work(shared, item))`` in the order in which they end; ``shared`` travels to each worker once.

        Parameters
        ----------
        work : a function of a module, run on a worker.
        shared : its first argument, the same for all pieces; picklable.
        items : second arguments, one a piece.

        Raises
        ------
        StackingError
            As the piece raised it, with the host it ran on; or the worker of a piece died again and again.
        """
        with self.client() as client:
            import dask
            from distributed import KilledWorker, as_completed

            with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):
                sent = client.submit(_same, shared, pure=False)  # a task, made again when all who had it died
            futures = {client.submit(piece, __version__, work, sent, item, pure=False): item for item in items}
            for future in as_completed(list(futures)):
                try:
                    result = future.result()
                except KilledWorker as error:
                    raise StackingError(
                        f"{futures[future]}: every worker that took it died ({error}). Most often its memory was too "
                        f"small: give each worker more, or lower --memory if the command has it. Then run the same "
                        f"command again; what it keeps on the way is not made twice."
                    ) from error
                except CancelledError as error:
                    raise StackingError(
                        f"{futures[future]}: the Dask scheduler gave it up ({error}). Was the scheduler stopped? Start "
                        f"it, then run the same command again; what it keeps on the way is not made twice."
                    ) from error
                yield futures.pop(future), result  # whose worker then need not hold the result any longer

    @contextmanager
    def client(self) -> Iterator[Any]:
        """A client of the cluster, all of whose workers run this version of pertstack.

        Raises
        ------
        NeedsExtraError, InputError, IntegrityError
            Dask is not installed; no scheduler answers, or it has no workers; a worker has another version.
        """
        try:
            from distributed import Client, LocalCluster
        except ImportError as error:
            raise NeedsExtraError(
                "The Dask engine needs dask and distributed, which are not installed here. Install them with: pip "
                "install 'pertstack[dask]', or use engine='local'."
            ) from error
        if self.address is None:
            with (
                LocalCluster(
                    n_workers=self.workers, threads_per_worker=1, processes=True, dashboard_address=None
                ) as local,
                Client(local) as client,
            ):
                yield client
            return
        try:
            client = Client(self.address, timeout=WAIT)
        except (OSError, ValueError) as error:
            raise InputError(
                f"No Dask scheduler answers at {self.address} ({error}). Start one with `dask scheduler`, workers with "
                f"`dask worker ADDRESS`, and give the address it prints, such as tcp://HOST:8786."
            ) from error
        with client:
            _refuse_strangers(client, self.address)
            yield client


def piece(version: str, work: Callable[..., Any], *arguments: Any) -> Any:
    """One piece on a worker: refused by another version of pertstack, its errors with the host they arose on."""
    if version != __version__:
        raise IntegrityError(_other_version({here(): __version__}, version))
    try:
        return work(*arguments)
    except StackingError as error:
        raise type(error)(f"{error} (On {here()}.)") from error
    except FileNotFoundError as error:
        raise StackingError(
            f"{error.filename} is not there on {here()}. Every worker must see the study's folder, whole and under "
            f"the same path."
        ) from error


def _same(value: T) -> T:
    return value


def here() -> str:
    """The machine of this process, in words."""
    import socket

    return f"host {socket.gethostname()}"


def _refuse_strangers(client: Any, address: str) -> None:
    """Refuse workers whose pertstack differs: their numbers might too."""

    def version() -> str:  # sent as code, so that it runs where pertstack is another one, or missing
        try:
            from pertstack._base.version import __version__ as theirs
        except ImportError:
            return "none"
        return str(theirs)

    try:
        client.wait_for_workers(1, timeout=WAIT)
    except TimeoutError as error:
        raise InputError(
            f"The Dask scheduler at {address} has had no worker for {WAIT} seconds. Start some with `dask worker "
            f"{address}`."
        ) from error
    found = client.run(version)
    if others := {worker: theirs for worker, theirs in found.items() if theirs != __version__}:
        raise IntegrityError(_other_version(others, __version__))


def _other_version(others: dict[str, str], ours: str) -> str:
    return (
        f"{len(others)} Dask worker{'s' if len(others) > 1 else ''} ({first_few(others, 3)}) "
        f"run{'' if len(others) > 1 else 's'} pertstack {first_few(sorted(set(others.values())), 3)} and this is "
        f"{ours}: sums of two versions might differ, and nothing would show it. Install pertstack=={ours} there, and "
        f"start the workers again."
    )
