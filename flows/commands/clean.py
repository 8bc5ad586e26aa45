"""`platelayer clean`: remove the scratch of runs; results, records and job files stay."""

import sys
from typing import Annotated

from cyclopts import Parameter

from pipeline.errors import BadArgument
from pipeline.store.ledger import ROOT, Ledger, held
from pipeline.store.places.address import address

SCRATCH = ("mask", "stacks", "pieces", "join", "done", "staging", "limits")


def clean(
    store: Annotated[str, Parameter(help="The output store of the runs.")],
    *,
    run: Annotated[str | None, Parameter(help="Only this run; default: every finished one.")] = None,
    unfinished: Annotated[bool, Parameter(help="Also runs that are not finished.", negative="")] = False,
) -> int:
    """Remove the scratch of finished runs; labels, tables, records and jobs stay."""
    place = address(store)
    runs = [name for name in place.children(ROOT) if not name.startswith(("lock", "staging"))]
    if run is not None and run not in runs:
        raise BadArgument(f"{place}: no run {run!r}; there are: {', '.join(runs) or 'none'}")
    removed = []
    with held(place, "clean"):
        for name in [run] if run else runs:
            ledger = Ledger(place, name)
            finished = (ledger.find_json("record.json") or {}).get("status") in ("complete", "partial")
            if finished or unfinished or run:
                for part in SCRATCH:
                    ledger.forget(part)
                removed.append(name)
    sys.stdout.write(f"removed the scratch of {len(removed)} run(s): {', '.join(removed) or 'none'}\n")
    return 0
