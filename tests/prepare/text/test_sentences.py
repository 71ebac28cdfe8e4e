"""Tricky texts with their correct cuts (at the bars), and texts made to break a splitter."""

import random
import re

import pytest

from bert.errors import UsageError
from bert.prepare.text.sentences import WINDOW, split_sentences

CASES = [
    # abbreviations and initials
    ("en", "Dr. Smith met Mr. Jones at 5 p.m. on Monday.| They talked."),
    ("en", "I met Ms. Smith.| See Eq. 4 and Vol. 3, too."),
    ("en", "Use fruit, e.g. apples or pears, i.e. what grows on trees.| Done."),
    ("en", "The U.S. Army and the U.S. Senate disagree.| He lives in the U.S. with her."),
    ("en", "See No. 5 and Fig. 3 on p. 12.| It is clear."),
    ("en", "J. R. R. Tolkien wrote it.| J.R.R. Tolkien was born in 1892."),
    ("en", "George W. Bush and John F. Kennedy were presidents.| So was Harry S. Truman."),
    ("en", "Apple Inc. and Acme Corp. are firms.| The former is larger."),
    ("en", "It was in Jan. 1990 or on Feb. 3, 1991.| Later it was not."),
    ("en", "Gen. Lee and Lt. Col. Mason met Sen. Taft.| Rev. King spoke."),
    ("en", "This is what Smith et al. found.| It holds."),
    ("en", "He got a Ph.D. in physics.| Then a B.A. in art."),
    ("en", "He rose at 6 a.m.| She slept."),
    ("en", "It cost approx. five crowns.| No one paid."),
    # numbers, names, addresses
    ("en", "It cost $3.50 in 1.5 hours.| Version 2.0.1 is out."),
    ("en", "It sank in 1912.| 5 men fell."),
    ("en", "iPhone sales rose.| iPads fell.| eBay grew."),
    ("en", "Yahoo! is a company.| It is old."),
    ("en", "Visit www.example.com for more.| Mail a.b@c.org today."),
    ("en", "That was I.| Did you see him?"),
    # quotation marks, brackets, marks of more than one character
    ("en", '"He left."| She stayed.'),
    ("en", "“He left.”| She stayed."),
    ("en", '"Go!" she said.| Nobody went.'),
    ("en", "He said, 'I am here.'| Then he left."),
    ("en", 'She sang "Help!" and "Who Are You?" twice.| All clapped.'),
    ("en", "“Stop!” he cried.| “Stop at once!”| They ran."),
    ("en", "Well ... I do not know.| Perhaps... he will come."),
    ("en", "What?!| Really!| Yes."),
    ("en", "He left (see Fig. 2).| She stayed."),
    ("en", "He left.[1]| She stayed.[2][3]| They met."),
    # lists, headings, lower case
    ("en", "1. Boil water.| 2. Add salt."),
    ("en", "Buy:|\n- milk|\n- bread and\n  butter|\n- eggs"),
    ("en", "CHAPTER I.|\n\nIt begins.| It goes on\nand on|\n \nThe end"),
    ("en", "he left .| she stayed .| they met ."),
    ("en", "he left.| she stayed."),
    # other languages
    ("de", "Am 3. Oktober kam der 2. Sohn, d. h. der Erbe.| Alle feierten."),
    ("de", "Kaiser Karl V. regierte lange.| Er sagte: „Ich gehe.“| Dann ging er."),
    ("fr", "Il vit M. Dupont et Mme Durand.| Il a dit : « Bonjour ! »| Elle est partie."),
    ("es", "¿Qué hora es?| ¡Son las tres!| El Sr. López llegó."),
    ("nl", "De baas, d.w.z. de chef, kwam.| Einde."),
    ("sv", "T.ex. detta.| Slut."),
    ("pl", "W 1990 r. odszedł.| Koniec."),
    ("ru", "Он родился в 1900 г. в Москве.| А. С. Пушкин писал стихи.| Да."),
    ("el", "Πού είναι;| Εδώ."),
    ("hy", "Ես տուն եմ գնում։| Նա մնաց։"),
    ("zh", "今天下雨。|我们回家。|你好吗？|他说：“我走了。”|她留下了。"),
    ("ja", "今日は雨です。|「そうですか？」と彼は言った。|はい！"),
    ("hi", "यह एक किताब है।| वह घर गया।| क्या तुम आओगे?"),
    ("bn", "সে গেল।| সে এল।"),
    ("ar", "كيف حالك؟| أنا بخير.| شكرا!"),
    ("ur", "وہ گیا۔| وہ آئی۔"),
    ("am", "ሰላም ነው።| ደህና።"),
]


@pytest.mark.parametrize(("language", "marked"), CASES, ids=[f"{c[0]}: {c[1][:30]}" for c in CASES])
def test_cuts(language, marked):
    expected = [" ".join(sentence.split()) for sentence in marked.split("|")]
    assert split_sentences(marked.replace("|", ""), language) == expected


def test_white_space():
    assert split_sentences("  It was\n\t late.  The\u00a0rain \r\n fell. \n") == ["It was late.", "The rain fell."]
    assert split_sentences("") == split_sentences(" \n\n\t\u3000 ") == []


def test_only_full_sentences_of_a_window_are_kept():
    sentences = [f"He walked {n} of the many miles to Dr. Brown." for n in range(1000, 1500)]
    assert split_sentences(" ".join(sentences)) == sentences


def test_an_unpaired_quotation_mark_holds_no_more_than_a_window_together():
    sentences = [f"The number {n} of them fell." for n in range(100)]
    found = split_sentences("Get 'em now. " + " ".join(sentences) + " It was the dogs' food. They left.")
    assert found == ["Get 'em now.", *sentences, "It was the dogs' food.", "They left."]


WITHOUT_END = [
    ("en", "word " * 2_000_000),
    ("en", "a" * 10_000_000),
    ("en", "." * 1_000_000),
    ("en", "ab\n" * 1_000_000),
    ("en", "Ms. " * 100_000),
    ("en", "1. " * 100_000),
    ("en", "«" * 100_000),
    ("en", '" a' * 100_000),
    ("zh", "今天" * 200_000),
    ("en", "\n " * 1_000_000),
]


@pytest.mark.parametrize(("language", "text"), WITHOUT_END, ids=[case[1][:5].strip() for case in WITHOUT_END])
@pytest.mark.timeout(20)  # hours where a step is quadratic
def test_long_text_without_sentence_ends_is_cut_at_blanks(language, text):
    sentences = split_sentences(text, language)
    assert all(len(sentence) < 2 * WINDOW for sentence in sentences)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    if " " in text.strip():
        assert set(" ".join(sentences).split()) == set(text.split())


def test_no_character_is_lost_whatever_the_text():
    rng = random.Random(1)
    parts = ["a", "Bc", "Mr", "1", "iv", "今", "é", "e\u0301", "😀", "。", "？", "」と", *".!?…'\"“”«([])-*:;"]
    parts += [" ", "  ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u2028", "\0"]
    for language in ("en", "de", "ja", "zh", "fr", "ru"):
        for _ in range(100):
            text = "".join(rng.choices(parts, k=rng.choice([5, 50, 5000])))
            sentences = split_sentences(text, language)
            assert "".join("".join(sentences).split()) == "".join(text.split())
            assert not [s for s in sentences if not s or s != s.strip() or re.search(r"\s\s|[^\S ]", s)]


def test_lone_surrogates_become_replacement_characters():
    assert split_sentences("He \ud800 left. So \ud83d\ude00.") == ["He \ufffd left.", "So 😀."]


def test_languages():
    german = "Am 3. Dezember kam er."
    assert split_sentences(german, "de-AT") == split_sentences(german, "DE") == [german]
    english = "Dr. No left. So did I."
    assert split_sentences(english, "simple") == split_sentences(english, "xx") == ["Dr. No left.", "So did I."]
    for language in ("english", "", "e", "en; rm"):
        with pytest.raises(UsageError, match=f"--language {language}: expected an ISO 639 code"):
            split_sentences("A.", language)
