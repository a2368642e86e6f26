"""Cutting a log: every byte once and in order, at line ends where it can, never inside a UTF-8 sequence."""

from hypothesis import given
from hypothesis import strategies as st

from proctor_agent.log.chunker import PATIENCE, Chunker, Piece, incomplete_tail
from proctor_common.messages.log import MAX_DATA
from proctor_common.states import Source

OUT, ERR = Source.STDOUT, Source.STDERR
REPEATED = st.tuples(
    st.sampled_from([b"a", b"\n", "é".encode(), "€".encode(), b"ab\n", b"\xff"]), st.integers(0, 90_000)
).map(lambda pair: pair[0] * (pair[1] // len(pair[0])))
DATA = st.one_of(
    st.binary(max_size=40), st.text(max_size=20).map(lambda text: text.encode("utf-8", "replace")), REPEATED
)
WRITES = st.lists(
    st.tuples(st.sampled_from([OUT, ERR]), DATA, st.sampled_from(["", "lines", "tick"])),
    max_size=12,
)


def cut(writes: list[tuple[Source, bytes, str]]) -> list[Piece]:
    chunker = Chunker()
    pieces = []
    for source, data, then in writes:
        pieces += chunker.add(source, data)
        pieces += chunker.cut_lines() if then == "lines" else chunker.tick() if then == "tick" else []
    pieces += chunker.cut_all()
    assert not chunker.holds
    return pieces


@given(WRITES)
def test_every_byte_comes_out_once_in_order_with_its_line(writes: list[tuple[Source, bytes, str]]) -> None:
    pieces = cut(writes)
    for source in (OUT, ERR):
        given_bytes = b"".join(data for origin, data, _ in writes if origin is source)
        assert b"".join(piece.data for piece in pieces if piece.source is source) == given_bytes
    line = 1
    for piece in pieces:
        assert piece.first_line == line
        assert 0 < len(piece.data) <= MAX_DATA
        line += piece.data.count(b"\n")


@given(st.text(alphabet="aé€😀\n", max_size=60), st.lists(st.integers(0, 8), max_size=60))
def test_no_cut_falls_into_a_character(text: str, sizes: list[int]) -> None:
    data = text.encode()
    chunker = Chunker()
    pieces = []
    for size in [*sizes, len(data)]:
        pieces += chunker.add(OUT, data[:size])
        data = data[size:]
        pieces += chunker.tick()
    pieces += chunker.cut_all()
    assert "".join(piece.data.decode() for piece in pieces) == text


def test_a_full_block_is_cut_at_its_last_line_end() -> None:
    chunker = Chunker()
    data = b"x" * (MAX_DATA - 3) + b"\nrest of it"
    assert [piece.data for piece in chunker.add(OUT, data)] == [data[: MAX_DATA - 2]]
    assert [piece.data for piece in chunker.cut_all()] == [b"rest of it"]


def test_a_line_longer_than_a_chunk_is_cut_between_characters() -> None:
    chunker = Chunker()
    pieces = chunker.add(OUT, "€".encode() * MAX_DATA)
    assert len(pieces) == 3
    assert all(len(piece.data) <= MAX_DATA and piece.data.decode() for piece in pieces)
    assert {piece.first_line for piece in pieces} == {1}


def test_whole_lines_go_at_once_and_a_begun_line_waits_a_tick() -> None:
    chunker = Chunker()
    chunker.add(OUT, b"one\ntw")
    assert chunker.cut_lines() == [Piece(OUT, 1, b"one\n")]
    assert chunker.cut_lines() == []
    assert chunker.tick() == [Piece(OUT, 2, b"tw")]


def test_a_begun_line_of_one_source_does_not_wait_for_the_lines_of_another() -> None:
    chunker = Chunker()
    chunker.add(OUT, b"password: ")
    chunker.add(ERR, b"warning\n")
    assert [piece.data for piece in chunker.tick()] == [b"password: ", b"warning\n"]


def test_a_begun_character_waits_and_is_given_up_after_a_while() -> None:
    chunker = Chunker()
    chunker.add(OUT, b"\xe2\x82")
    ticks = [chunker.tick() for _ in range(PATIENCE)]
    assert ticks[:-1] == [[]] * (PATIENCE - 1)
    assert ticks[-1] == [Piece(OUT, 1, b"\xe2\x82")]


def test_incomplete_tails() -> None:
    euro, smile = "€".encode(), "😀".encode()
    assert [incomplete_tail(data) for data in (b"", b"a", euro, euro[:1], euro[:2], smile[:3], smile)] == [
        0,
        0,
        0,
        1,
        2,
        3,
        0,
    ]
    assert incomplete_tail(b"\xff") == 0
    assert incomplete_tail(b"\x80\x80\x80\x80") == 0
