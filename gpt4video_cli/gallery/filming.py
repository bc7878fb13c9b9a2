"""A generator calls back as it goes; an assistant yields events. This turns the one into the other."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

from gpt4video_cli.gallery.generator import Film, Happening, Listener


def film_events(film: Callable[[Listener], Film], cancel: threading.Event) -> Generator[Happening, None, Film]:
    """Events while ``film`` runs in a thread of its own; returns what it returns and raises what it raises.

    Closing the iterator, or an interrupt while it waits, sets ``cancel`` and waits for the step that is going on: two
    films must not be made with one model at a time.
    """
    happenings: queue.SimpleQueue[Happening | None] = queue.SimpleQueue()
    result: list[Film] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(film(happenings.put))
        except BaseException as error:
            failure.append(error)
        finally:
            happenings.put(None)

    worker = threading.Thread(target=run, name="film", daemon=True)
    with _joined(worker, cancel):
        while (happening := happenings.get()) is not None:
            yield happening
    if failure:
        raise failure[0]
    return result[0]


@contextmanager
def _joined(worker: threading.Thread, cancel: threading.Event) -> Iterator[None]:
    worker.start()
    try:
        yield
    except BaseException:
        cancel.set()
        raise
    finally:
        worker.join()
