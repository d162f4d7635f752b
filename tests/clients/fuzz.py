"""What schemathesis has to know of this API: its scalars, and what no answer may be.

`FUZZED` names a file with JSON: {"ids": [...]}, UUIDs that name something. What was answered is counted by code, and
written beside it as `answers.json` at the end.
"""

import atexit
import json
import os
from collections import Counter
from pathlib import Path

import schemathesis
from hypothesis import strategies as st
from hypothesis_graphql import nodes

FUZZED = Path(os.environ["FUZZED"])
IDS = json.loads(FUZZED.read_text())["ids"]
# What could not be done, because something that is needed is away. Here nothing is.
OURS = {"INTERNAL", "STORE_UNAVAILABLE", "HYPERVISOR_UNAVAILABLE"}

known = st.sampled_from(IDS)
# Most of what is asked for is to be there; a UUID that is none is the fuzzer's own idea soon enough.
uuids = st.one_of(known, known, known, known, known, known, known, st.uuids().map(str))
edges = st.sampled_from([2**31, 2**53, 2**63 - 1, 2**63])
whole = st.one_of(st.integers(0, 2**12), st.integers(0, 2**40), edges, st.integers(-(2**70), 2**70))
# The edges of what Chrono and the databases can say, and what none of them can.
odd = st.sampled_from(["0000-01-01T00:00:00Z", "-262143-01-01T00:00:00Z", "+262142-12-31T23:59:59Z", "now"])
times = st.one_of(st.datetimes().map(lambda at: f"{at.isoformat()}Z"), odd)
schemathesis.graphql.scalar("UUID", uuids.map(nodes.String))
schemathesis.graphql.scalar("BigInt", whole.map(str).map(nodes.String))
schemathesis.graphql.scalar("DateTime", times.map(nodes.String))
schemathesis.graphql.scalar("JSON", st.text(max_size=20).map(nodes.String))

answers = Counter()


@schemathesis.check
def answered_well(ctx, response, case):
    """Nothing of ours went wrong, and whatever is refused has a code."""
    answers["requests"] += 1
    assert response.status_code < 500, f"status {response.status_code}"
    told = response.json()
    errors = told.get("errors", [])
    if not errors:
        answers["done"] += 1
    for error in errors:
        code = error.get("extensions", {}).get("code")
        assert isinstance(code, str) and code, f"an error without a code: {error}"
        answers[code] += 1
        assert code not in OURS, f"{code}: {error}"


@atexit.register
def told():
    FUZZED.with_name("answers.json").write_text(json.dumps(answers))
