"""A part in a process of its own: `python -m bench.gpu.child JOB.json`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from bench.gpu.parts import Job, measure

if __name__ == "__main__":
    job = Job.read(Path(sys.argv[1]))
    (job.directory / "result.json").write_text(json.dumps(asdict(measure(job))))
