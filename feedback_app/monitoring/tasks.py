"""Celery tasks of monitoring."""

from celery import shared_task

from feedback_app.monitoring.retention.services import cleanup_take, cleanup_waiting
from feedback_app.monitoring.system.measure import disk_is_due, disk_measure, engines_measure
from feedback_app.monitoring.watch import installation_watch

#: A message that no worker took by then is sent again by a later tick.
EXPIRES = 60


@shared_task(name="monitoring.dispatch")
def dispatch() -> None:
    """Tell people about engines that do not answer and disks that are nearly full, and send what
    the System page shows to be measured."""
    installation_watch()
    measure_engines.apply_async((), expires=EXPIRES)
    if disk_is_due():
        measure_disk.apply_async((), expires=EXPIRES)
    if cleanup_waiting():
        free.apply_async((), expires=EXPIRES)


@shared_task(name="monitoring.measure_engines")
def measure_engines() -> None:
    """Ask the engines what they have loaded."""
    engines_measure()


@shared_task(name="monitoring.measure_disk")
def measure_disk() -> None:
    """Walk the directories of this worker's host."""
    disk_measure()


@shared_task(name="monitoring.free")
def free() -> None:
    """Delete the files that the rules allow, if that was asked for, then measure the disk again."""
    if cleanup_take():
        disk_measure()
