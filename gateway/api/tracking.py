"""Which calls of MLflow's protocol only read: for keys that may look, and change nothing."""

from __future__ import annotations

import re

#: What is asked with POST and changes nothing all the same. Whatever is not known here counts as a change.
READS = frozenset(
    {
        "experiments/search",
        "experiments/search-datasets",
        "runs/search",
        "registered-models/search",
        "registered-models/get-latest-versions",
        "logged-models/search",
        "datasets/search",
        "traces/search",
        "traces/batchGetInfos",
    }
)
_PLACE = re.compile(r"/(?:ajax-)?api/\d\.\d/mlflow/(.*)")


def reads(method: str, path: str) -> bool:
    """Whether a call changes nothing."""
    if method in ("GET", "HEAD"):
        return True
    place = _PLACE.fullmatch(path)
    return method == "POST" and place is not None and place[1] in READS
