"""Annotators at work, as a process: each votes once per `pause` seconds, over one connection.

It reads its job as JSON on stdin and prints the milliseconds of every verdict as JSON. A pause of 0
means without a pause: the rate is then what the server delivers.
"""

import json
import sys
import threading
import time

from bench.annotation_vs_labelstudio.load import Ours


def work(person: Ours, *, first: float, pause: float, until: float) -> None:
    """Vote until the time is over. A late verdict does not delay the ones after it."""
    try:
        due = first
        time.sleep(max(0.0, due - time.monotonic()))
        person.start()
        while time.monotonic() < until:
            due += pause
            time.sleep(max(0.0, due - time.monotonic()))
            started = time.monotonic()
            person.items.append(person.cycle())
            ended = time.monotonic()
            person.cycles.append((ended, ended - started))
    except StopIteration:
        person.errors.append("no item is left")
    except Exception as error:
        person.errors.append(repr(error)[:300])


def main() -> None:
    job = json.loads(sys.stdin.read())
    people = [Ours(job["port"], session, job["project"]) for session in job["sessions"]]
    begin = time.monotonic()
    threads = []
    for number, person in enumerate(people):
        # spread over the first pause, as people do not click at the same time
        first = begin + number * job["pause"] / len(people)
        times = {"first": first, "pause": job["pause"], "until": begin + job["seconds"]}
        threads.append(threading.Thread(target=work, args=(person,), kwargs=times))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # the first verdicts warm up connections, templates and caches
    warm = begin + min(5.0, job["seconds"] / 4)
    cycles = [cycle for person in people for cycle in person.cycles if cycle[0] > warm]
    found = {
        "milliseconds": [1_000 * taken for _, taken in cycles],
        "rate": len(cycles) / (begin + job["seconds"] - warm),
        "errors": [error for person in people for error in person.errors],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
