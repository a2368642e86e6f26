"""What block storage answers, read with care."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor_controller.volumes.backend import BackendBusy, BackendDown, BadRequest, FoundState, QuotaRefused
from proctor_controller.volumes.cinder.answers import (
    Answer,
    base_of,
    fault_of,
    message_of,
    microversion,
    next_marker,
    read_json,
    room_of,
    root_of,
    seconds_of,
    time_of,
    version_of,
    volume_of,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
LINKS = st.lists(st.fixed_dictionaries({"rel": st.just("next"), "href": JSON}) | JSON, max_size=3)
VERSIONS = st.lists(st.fixed_dictionaries({"id": st.just("v3.0"), "version": JSON}) | JSON, max_size=3)
MARKS = st.just({"proctor_installation": "lab", "proctor_volume": "v-1"})
ROWS = st.fixed_dictionaries(
    {"id": st.text(), "metadata": MARKS, "size": JSON, "status": JSON, "name": JSON, "created_at": JSON}
)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "volumes_links": LINKS | JSON,
        "versions": VERSIONS | JSON,
        "limits": st.fixed_dictionaries({"absolute": st.dictionaries(st.just("maxTotalVolumes"), JSON) | JSON}) | JSON,
        "volume": ROWS | JSON,
        "error": JSON,
    },
)


@given(BODIES, st.integers(400, 599), st.text(max_size=200))
def test_no_answer_is_strange_enough_to_break_the_reading(body: dict[str, object], status: int, text: str) -> None:
    answer = Answer(status, body, text)
    assert message_of(answer)
    assert f"try: {status}: " in str(fault_of(answer, "try"))
    next_marker(body)
    version_of(body)
    room_of(body)
    volume_of(body.get("volume"), "lab")
    read_json(text)


@pytest.mark.parametrize(
    ("status", "key", "retry_after", "kind"),
    [
        (400, "badRequest", None, BadRequest),
        (401, "error", None, BackendDown),
        (403, "forbidden", None, BadRequest),
        (404, "itemNotFound", None, BadRequest),
        (404, "message", None, BackendDown),
        (413, "overLimit", 0.0, QuotaRefused),
        (413, "overLimit", 30.0, BackendBusy),
        (429, "overLimit", None, BackendBusy),
        (500, "computeFault", None, BackendDown),
        (503, "error", None, BackendDown),
    ],
)
def test_each_refusal_has_its_meaning(status: int, key: str, retry_after: float | None, kind: type) -> None:
    answer = Answer(status, {key: {"code": status, "message": "why"}}, retry_after=retry_after, request_id="req-1")
    fault = fault_of(answer, "try")
    assert type(fault) is kind
    assert str(fault) in {f"try: {status}: why (req-1)", f"the cloud refuses a fresh token: try: {status}: why (req-1)"}


def test_a_page_for_people_is_told_in_a_line() -> None:
    page = "<html><head><title>503 Service Unavailable</title></head>\n<body><h1>No server</h1>\n</body></html>"
    assert message_of(Answer(503, {}, page)) == "503 Service Unavailable No server"


def test_a_volume_is_ours_by_both_marks_only() -> None:
    marks = {"proctor_installation": "lab", "proctor_volume": "v-1"}
    row = {"id": "c-1", "name": "n", "size": 2, "volume_type": "igw", "status": "in-use", "metadata": marks}
    found = volume_of({**row, "created_at": "2026-11-21T05:10:53.000000"}, "lab")
    assert found is not None
    assert (found.volume_id, found.state) == ("v-1", FoundState.IN_USE)
    assert found.created_at == datetime(2026, 11, 21, 5, 10, 53, tzinfo=UTC)
    for other in ({}, {"proctor_volume": "v-1"}, {"proctor_installation": "lab"}, {**marks, "proctor_volume": ""}):
        assert volume_of({**row, "metadata": other}, "lab") is None
    assert volume_of(row, "lab-2") is None
    unknown = volume_of({**row, "status": "awaiting-transfer"}, "lab")
    assert unknown is not None
    assert (unknown.state, unknown.reason) == (FoundState.OTHER, "awaiting-transfer")


def test_versions_and_addresses() -> None:
    documents = {"versions": [{"id": "v2.0", "version": ""}, {"id": "v3.0", "version": "3.71"}]}
    assert version_of(documents) == (3, 71)
    assert [microversion(highest) for highest in ((3, 71), (3, 70), (3, 40), (3, 31))] == [
        "3.70",
        "3.70",
        "3.40",
        "3.31",
    ]
    with pytest.raises(BadRequest, match=r"needs 3\.31"):
        microversion((3, 30))
    for endpoint in ("https://c/volume/v3/0a1b", "https://c/volume/v3", "https://c/volume/v3/"):
        assert root_of(endpoint) == "https://c/volume"
    assert base_of("https://c/v3", "0a1b") == base_of("https://c/v3/0a1b", "0a1b") == "https://c/v3/0a1b"


def test_room_seconds_and_pages() -> None:
    limits = {"maxTotalVolumes": 10, "totalVolumesUsed": 4, "maxTotalVolumeGigabytes": 100, "totalGigabytesUsed": 98}
    assert room_of({"limits": {"absolute": limits}}) == 2
    assert room_of({"limits": {"absolute": {**limits, "maxTotalVolumeGigabytes": -1}}}) == 6
    assert room_of({"limits": {"absolute": {}}}) is None
    assert [seconds_of(text) for text in ("2", "0", "-1", "Wed, 21 Oct", None, "1e9")] == [2, 0, None, None, None, None]
    link = "http://inside:8776/v3/p/volumes/detail?limit=2&marker=c-2"
    assert next_marker({"volumes_links": [{"rel": "next", "href": link}]}) == "c-2"
    assert time_of("2026-11-21T05:10:53") == time_of("2026-11-21T06:10:53+01:00")
