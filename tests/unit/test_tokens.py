"""Words of many languages, by value."""

from __future__ import annotations

import pytest

from secondglance.retrieve.tokens import MAX_CHARS, tokenize


@pytest.mark.parametrize(
    ("text", "stream"),
    [
        ("Two dogs, on a BEACH!", "two dogs on a beach"),
        ("don't l'eau", "don t l eau"),
        ("naïve café ÅNGSTRÖM", "naive cafe angstrom"),
        ("Häuser an der Straße", "hauser an der strasse"),
        ("Strandbürgermeister", "strandburgermeister"),  # compounds stay whole
        ("Łódź øl ĐÀ NẴNG ışık İstanbul", "lodz ol da nang isik istanbul"),
        ("ΆΝΘΡΩΠΟΣ", "ανθρωποσ"),
        ("ёлка Йод", "елка йод"),  # й is a letter of its own
        ("كَلْبٌ عَلَى أحمد كـــتاب", "كلب علي احمد كتاب"),
        ("می‌خواهم", "ميخواهم"),
        ("שָׁלוֹם", "שלום"),
        ("समुद्र तट पर कुत्ता", "समुद्र तट पर कुत्ता"),
        ("海滩", "海滩"),
        ("两只狗", "两只 只狗"),
        ("走る犬", "走る る犬"),
        ("ビーチ", "ビー ーチ"),
        ("ｶﾒﾗ", "カメ メラ"),  # half width
        ("日本2019年", "日本 2019 年"),
        ("해변에서 뛰는 개", "해변 변에 에서 뛰는 개"),
        ("ชายหาด", "ชา าย ยห หา าด"),
        ("", ""),
        ("!?#_ - ☃ 😀", ""),
    ],
)
def test_the_words_of_a_text_in_their_order(text: str, stream: str) -> None:
    assert " ".join(tokenize(text).stream) == stream


@pytest.mark.parametrize(
    ("text", "stream", "extra"),
    [
        ("IMG_2041_BeachParty", "img 2041 beach party", "beachparty"),
        ("DSC01234", "dsc 01234", "dsc01234"),
        ("HTTPServer iPhone 4K", "http server i phone 4 k", "httpserver iphone 4k"),
        ("VID20190723WA0001", "vid 20190723 wa 0001", "vid20190723wa0001"),
        ("ÉtéÀParis2019", "ete a paris 2019", "eteaparis2019"),
        ("海滩", "海滩", "海 滩"),
        ("走る犬", "走る る犬", "走 犬"),
        ("ビーチ", "ビー ーチ", ""),
    ],
)
def test_further_forms_of_the_same_words(text: str, stream: str, extra: str) -> None:
    tokens = tokenize(text)
    assert " ".join(tokens.stream) == stream
    assert " ".join(tokens.extra) == extra
    assert tokens.all == tokens.stream + tokens.extra


def test_tokens_hold_nothing_that_a_query_language_knows() -> None:
    text = '" OR * NEAR(a, 2) {name}: -x ^y + \\ \x00 \' ( text:"a'
    assert tokenize(text).all == ("or", "near", "a", "2", "name", "x", "y", "text", "a")


def test_a_word_without_end_is_cut() -> None:
    assert tokenize("a" * 10_000).stream == ("a" * MAX_CHARS,)


def test_decomposed_and_composed_text_are_the_same() -> None:
    assert tokenize("Müller") == tokenize("Mu\u0308ller")
    assert tokenize("해변") == tokenize("\u1112\u1162\u1107\u1167\u11ab")
    assert tokenize("が") == tokenize("か\u3099")
