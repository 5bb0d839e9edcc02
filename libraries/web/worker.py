"""A process that downloads what it is told: `processes` starts it and says what the lines mean."""

import json
import os
import queue
import sys
import threading

from libraries.web.processes import encoded
from libraries.web.task import Attempt, Limits, Task


def main() -> None:
    """Do what the lines of standard input say until they end."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # should a library print something
    settings = json.loads(sys.stdin.buffer.readline())
    threads = settings["threads"]
    task = Task(Limits(**settings["limits"]), threads=threads, decoders=settings["decoders"])
    todo: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    lock = threading.Lock()

    def work() -> None:
        while True:
            number, url, labels = json.loads(todo.get())
            result: Attempt | Exception
            try:
                result = task(url, labels)
            except Exception as error:  # not swallowed: whoever asked decides
                result = error
            line = encoded(number, result)
            with lock:
                answers.write(line)
                answers.flush()

    for _ in range(threads):
        threading.Thread(target=work, daemon=True).start()
    for line in sys.stdin.buffer:
        todo.put(line)
    os._exit(0)  # whoever asked has all answers, or has died


if __name__ == "__main__":
    main()
