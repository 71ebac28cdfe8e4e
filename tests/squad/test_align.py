import pytest

from bert.squad.align import detokenize, get_final_text


@pytest.mark.parametrize(
    ("pred", "orig", "expected"),
    [
        ("steve smith", "Steve Smith's", "Steve Smith"),
        ("steve jones", "Steve Smith's", "Steve Smith's"),  # not found
        ("1995", "(1995),", "1995"),
        ("( 1995", "(1995),", "(1995"),
        ("5 , 0", "$5,000", "5,0"),
        ("京", "北京大", "京"),
        ("北 京", "北京大", "北京"),
        ("elysee", "l'Élysée.", "Élysée"),  # removing accents keeps the number of composed letters
        ("elysee", "l'E\u0301lyse\u0301e.", "l'E\u0301lyse\u0301e."),  # but not of decomposed ones
        ("team", "the\u00a0team", "the\u00a0team"),  # another kind of blank counts as a letter on one side only
        ("the team", "the team\u200b", "the team\u200b"),
        ("smith s", "Smith's", "Smith's"),
        ("", "Smith", "Smith"),
        ("[MASK]", "a [MASK] b", "[MASK]"),
        ("d", "a b c d e", "d"),
        ("a", "b (a) a", "a"),
        ("s", "steve's s", "s"),  # the first "s" is that of "steve"
    ],
)
def test_get_final_text(pred, orig, expected):
    assert get_final_text(pred, orig, do_lower_case=True) == expected


def test_casing_of_the_final_text():
    assert get_final_text("smith", "(Smith)", do_lower_case=False) == "(Smith)"
    assert get_final_text("Smith", "(Smith)", do_lower_case=False) == "Smith"


@pytest.mark.parametrize(("pred", "orig"), [("jones", "Smith's"), ("smith", "(Smith)")])
def test_failed_alignment_is_reported_on_request(capsys, pred, orig):
    get_final_text(pred, orig, False)
    assert capsys.readouterr().err == ""
    get_final_text(pred, orig, False, verbose_logging=True)
    assert capsys.readouterr().err == f"{pred!r} not found in {orig!r}, which becomes the whole answer\n"


def test_detokenize():
    assert detokenize(["un", "##able", ",", "##s"]) == "unable ,s"
    assert detokenize(["##able", "to"]) == "able to"
