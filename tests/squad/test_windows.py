import pytest

from bert.squad.windows import best_windows, improve_answer_span, spans


@pytest.mark.parametrize(
    ("pieces", "room", "stride", "expected"),
    [
        (10, 4, 2, [(0, 4), (2, 4), (4, 4), (6, 4)]),
        (9, 4, 3, [(0, 4), (3, 4), (6, 3)]),
        (4, 4, 1, [(0, 4)]),
        (10, 4, 100, [(0, 4), (4, 4), (8, 2)]),  # a stride beyond the room leaves no gap
        (3, 1, 5, [(0, 1), (1, 1), (2, 1)]),
        (0, 4, 2, []),
    ],
)
def test_spans(pieces, room, stride, expected):
    assert spans(pieces, room, stride) == expected


@pytest.mark.parametrize(
    ("windows", "expected"),
    [
        ([(0, 4), (2, 4), (4, 4), (6, 4)], [0, 0, 0, 1, 1, 2, 2, 3, 3, 3]),
        ([(0, 4), (3, 4), (6, 4)], [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]),  # at 3 and 6 both score 0.04: the first
        ([(0, 4), (3, 3)], [0, 0, 0, 0, 1, 1]),
        ([(0, 3), (1, 4)], [0, 0, 1, 1, 1]),  # at 1: 1.03 against 0.04; at 2: 0.03 against 1.04
        ([(0, 2), (1, 100)], [0, 1, *[1] * 99]),  # at 1: 0.02 against 1.0, for the length of the window counts
        ([(0, 3)], [0, 0, 0]),
        ([], []),
    ],
)
def test_best_windows(windows, expected):
    assert best_windows(windows).tolist() == expected


@pytest.mark.parametrize(
    ("pieces", "answer", "expected"),
    [
        ("( 1895 - 1943 ) .", "1895", (1, 1)),
        ("( 1895 - 1943 ) .", "1895 - 1943", (1, 3)),
        ("la - la - la", "la", (0, 0)),
        ("japan ##ese", "jap", (0, 1)),  # not found: the words stay whole
        ("a b", "a b c", (0, 1)),
        ("a b", "", (0, 1)),
    ],
)
def test_improve_answer_span(pieces, answer, expected):
    assert improve_answer_span(pieces.split(), 0, len(pieces.split()) - 1, answer.split()) == expected


def test_improve_answer_span_stays_within():
    assert improve_answer_span([7, 5, 7, 5], 1, 2, [7]) == (2, 2)
    assert improve_answer_span([7, 5, 7, 5], 1, 2, [7, 5]) == (1, 2)
