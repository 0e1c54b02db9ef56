"""Old encodings of one byte a character: the language of the text tells them apart."""

import io
import json
import random

import pytest

from stemma.reading import ReadError, Record, read
from stemma.reading.encoding import decode
from stemma.reading.legacy import detect_one_byte

PROSE = {
    "french": "Après la pluie, le vieux pêcheur répara son filet déchiré près du grenier, là où l’été précédent "
    "les hirondelles avaient bâti leurs nids ; sa sœur préférait le marché, plein à craquer dès l’aube.",
    "german": "Über den Dächern hingen noch Nebelschwaden, als der Bäcker die ersten Brötchen aus dem Ofen zog. "
    "Draußen fütterte ein Mädchen die Vögel und zählte fröhlich ihre Flügelschläge.",
    "spanish": "Mañana saldrá el último tren hacia la montaña, según decía un cartel pequeño de la estación; "
    "nadie sabía si el señor Ibáñez volvería después con sus niños.",
    "portuguese": "A avó não dormiu: as crianças ficaram à janela até à manhã, à espera dos aviões que "
    "traziam notícias e cartas da irmã mais velha, lá do outro lado do oceano.",
    "swedish": "På ängen bakom gården växte blåklockor, och när kvällen kom gick männen över ån för att "
    "hämta fåren hem innan det började snöa igen på höjderna.",
    "finnish": "Syksyllä järven jäätyessä kalastajat nostivat veneensä rannalle ja lähtivät metsään keräämään "
    "sieniä, jotka äiti myöhemmin säilöi pitkää pimeää talvea varten.",
    "icelandic": "Þegar veðrið lægði fóru bræðurnir út að leita að kindunum, en áin hafði vaxið svo mikið að "
    "þeir urðu að bíða fram á næsta dag í gömlu húsi undir fjallinu.",
    "polish": "Wczesną wiosną sąsiedzi zaczęli łowić ryby w rzece, choć woda była jeszcze zimna, a dzieci "
    "biegały po łące, śmiejąc się głośno z każdej żaby, którą udało się złapać.",
    "czech": "Když přišel večer, seděli jsme u ohně a vyprávěli si příběhy o řekách, které už dávno vyschly, "
    "zatímco děti házely do plamenů suché větvičky a čekaly na první hvězdy.",
    "slovak": "Keď prišla zima, ľudia v dedine piekli chlieb spoločne a večer spievali piesne, ktoré sa "
    "naučili od starých materí; iba mlynár žil ďaleko za riekou so svojím psom.",
    "hungarian": "Az öreg halász minden reggel kiült a tó partjára, és türelmesen várta, hogy a köd fölött "
    "megjelenjen az első fény, mert tudta, hogy a nagyobb halak csak akkor jönnek elő a mélyből, ősszel főként.",
    "croatian": "Svakoga jutra stariji čovjek šetao je uz rijeku i pričao psu o ljudima koji su nekoć živjeli "
    "u kućama na drugoj obali, gdje sada raste samo gusta šuma i pokoji žbun divljih ruža.",
    "turkish": "Yağmur dindiğinde çocuklar bahçeye çıktı; büyükanneleri ise pencerenin önünde oturmuş, "
    "eski günlerde bu sokakta yaşayan komşularını düşünüyor, çayını yavaşça içiyordu.",
    "lithuanian": "Anksti rytą žvejai išplaukė į ežerą, nors vėjas jau kėlė aukštas bangas, o krante likę "
    "vaikai šūkavo ir mėtė akmenėlius į vandenį, kol grįžo paskutinė valtis.",
    "latvian": "Agri no rīta zvejnieki devās jūrā, lai gan vējš jau cēla augstus viļņus, bet krastā palikušie "
    "bērni spēlējās ar akmeņiem un gaidīja, kad atgriezīsies pēdējā laiva.",
    "albanian": "Në mëngjes plaku doli nga shtëpia dhe eci deri te lumi, ku fëmijët luanin me gurë të vegjël "
    "çdo ditë, ndërsa gratë lanin rrobat dhe këndonin këngë të vjetra.",
    "greek": "Το πρωί ο γέρος ψαράς κατέβηκε στην παραλία και κοίταξε τη θάλασσα, που ήταν ήρεμη ύστερα από "
    "πολλές μέρες· τα παιδιά έπαιζαν στην άμμο και γελούσαν δυνατά.",
}
WESTERN = ("cp1252", "iso8859_15", "mac_roman")
CENTRAL = ("cp1250", "iso8859_2", "mac_latin2", "cp852")
ENCODINGS = {
    **dict.fromkeys(("french", "german", "spanish", "portuguese", "swedish", "finnish"), WESTERN),
    **dict.fromkeys(("polish", "czech", "slovak", "hungarian", "croatian"), CENTRAL),
    **dict.fromkeys(("lithuanian", "latvian"), ("cp1257",)),
    **{"icelandic": ("cp1252", "cp850"), "turkish": ("iso8859_9", "cp857"), "albanian": ("cp1252",)},
    "greek": ("cp1253", "iso8859_7"),
}
CASES = [(language, encoding) for language in PROSE for encoding in ENCODINGS[language]]


@pytest.mark.parametrize(("language", "encoding"), CASES)
def test_prose(language: str, encoding: str) -> None:
    text = PROSE[language]
    if encoding not in ("cp1252", "mac_roman", "cp1250", "cp1253"):
        text = text.replace("’", "'")
    if encoding == "iso8859_7":
        text = text.replace("·", ";")
    for end in ("", "\n", "\r\n" * 3):
        assert decode((text + end).encode(encoding))[0] == text + end


RUSSIAN = (
    "Рано утром старый рыбак спустился к морю и долго смотрел на тихую воду. Дети играли на песке и громко "
    "смеялись, а их мать развешивала бельё у дома.\nВечером все собрались у огня."
)
OTHERS = {
    "shift_jis": "朝早く、年老いた漁師は浜辺に降りて静かな海を眺めた。子どもたちは砂の上で遊んだ。",
    "euc_jp": "朝早く、年老いた漁師は浜辺に降りて静かな海を眺めた。子どもたちは砂の上で遊んだ。",
    "cp949": "이른 아침 늙은 어부는 바닷가로 내려가 잔잔한 바다를 바라보았다. 아이들은 모래 위에서 놀았다.",
    "gb18030": "清晨，老渔夫来到海边，望着平静的大海。孩子们在沙滩上玩耍，大声地笑着。",
    "big5": "清晨，老漁夫來到海邊，望著平靜的大海。孩子們在沙灘上玩耍，大聲地笑著。",
    **dict.fromkeys(("koi8_r", "cp1251", "cp866", "iso8859_5"), RUSSIAN),
}


@pytest.mark.parametrize("encoding", OTHERS)
def test_other_scripts_stay_with_the_statistics(encoding: str) -> None:
    data = OTHERS[encoding].encode(encoding)
    assert detect_one_byte(data) is None
    assert decode(data)[0] == OTHERS[encoding]


def test_markup_and_ascii_before_the_first_accent_do_not_mislead() -> None:
    page = "<html><body>" + "<p class=x>plain</p>\n" * 2000 + f"<p>{PROSE['finnish']}</p></body></html>\n"
    assert decode(page.encode("cp1252"))[0] == page


def test_any_bytes_have_an_answer() -> None:
    chance = random.Random(1)
    for _ in range(200):
        data = bytes(chance.choices(range(256), k=chance.choice((1, 7, 300))))
        text, name = decode(data)
        assert (text, name) == decode(data)
        assert text.encode() or not data


@pytest.mark.parametrize(
    ("language", "encoding"), [("french", "cp1252"), ("polish", "iso8859_2"), ("japanese", "shift_jis")]
)
def test_json_in_old_encodings(language: str, encoding: str) -> None:
    # In Shift JIS the second byte of ソ is a backslash.
    text = PROSE.get(language, OTHERS["shift_jis"] + "ソース表").replace("’", "'")
    lines = "".join(json.dumps({"id": i, "text": text}, ensure_ascii=False) + "\n" for i in "ab")
    data = lines.encode(encoding)
    found = [r for r in read(io.BytesIO(data), "a.jsonl") if isinstance(r, Record)]
    assert [(r.record, r.content) for r in found] == [("a", text), ("b", text)]
    for record in found:
        row = json.loads(data[record.byte_start : record.byte_end].decode(encoding))
        assert row == {"id": record.record, "text": text}
    array = ("[" + ",\n".join(lines.splitlines()) + "]").encode(encoding)
    found = [r for r in read(io.BytesIO(array), "a.json") if isinstance(r, Record)]
    assert [(r.record, r.content) for r in found] == [("a", text), ("b", text)]


def test_one_bad_line_of_json_is_an_error_of_that_line() -> None:
    data = b'{"text": "plain"}\n{"text": "caf\xe9"}\n{"text": "more"}\n'
    first, bad, last = read(io.BytesIO(data), "a.jsonl")
    assert isinstance(first, Record)
    assert isinstance(last, Record)
    assert isinstance(bad, ReadError)
    assert bad.error == "not UTF-8"


def test_a_character_cut_by_the_end_of_the_head_is_no_other_encoding() -> None:
    start = b'[{"text": "'
    for shift in range(3):
        data = start + b"x" * (65536 - len(start) - shift) + "€".encode() + b'"}]'
        (record,) = read(io.BytesIO(data), "a.json")
        assert isinstance(record, Record)
        assert (record.content or "").endswith("€")
