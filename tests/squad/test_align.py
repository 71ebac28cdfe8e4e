import pytest

from bert.squad.align import align, detokenize, get_final_text


@pytest.mark.parametrize(
    ("pred", "orig", "expected"),
    [
        ("steve smith", "Steve Smith's", "Steve Smith"),
        ("steve jones", "Steve Smith's", "Steve Smith's"),  # not in it
        ("1995", "(1995),", "1995"),
        ("( 1995", "(1995),", "(1995"),
        ("5 , 0", "$5,000", "5,0"),
        ("京", "北京大", "京"),
        ("北 京", "北京大", "北京"),
        ("elysee", "l'Élysée.", "Élysée"),  # composed letters keep their number when accents go
        ("elysee", "l'E\u0301lyse\u0301e.", "l'E\u0301lyse\u0301e."),  # decomposed ones do not
        ("team", "the\u00a0team", "the\u00a0team"),  # a blank of another kind is a letter of one side only
        ("the team", "the team\u200b", "the team\u200b"),
        ("smith s", "Smith's", "Smith's"),
        ("", "Smith", "Smith"),
        ("[MASK]", "a [MASK] b", "[MASK]"),
        ("d", "a b c d e", "d"),
        ("a", "b (a) a", "a"),
        ("s", "steve's s", "s"),  # the first "s" that it meets is that of "steve"
    ],
)
def test_get_final_text(pred, orig, expected):
    assert get_final_text(pred, orig, do_lower_case=True) == expected


def test_casing_of_the_final_text():
    assert get_final_text("smith", "(Smith)", do_lower_case=False) == "(Smith)"
    assert get_final_text("Smith", "(Smith)", do_lower_case=False) == "Smith"
    assert align("smith", "(Smith)", do_lower_case=False) is None


def test_what_cannot_be_aligned_is_said_if_asked(capsys):
    get_final_text("jones", "Smith's", True)
    assert capsys.readouterr().err == ""
    get_final_text("jones", "Smith's", True, verbose_logging=True)
    assert capsys.readouterr().err == "'jones' cannot be found in \"Smith's\", which is the answer as a whole\n"


def test_detokenize():
    assert detokenize(["un", "##able", ",", "##s"]) == "unable ,s"
    assert detokenize(["##able", "to"]) == "able to"
