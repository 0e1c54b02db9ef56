"""Stop words: the commonest words of a language; ordinary prose holds several of them.

English has those of Gopher (Rae et al. 2021, appendix A.1.1). The others are FineWeb2's, found by frequency in
Wikipedia: `configs/*.yml` of https://github.com/huggingface/fineweb-2 (commit d0defb24, Apache-2.0).
"""

GOPHER = "the be to of and that have with"

STOP_WORDS = {
    "en": GOPHER,
    "af": "die van in en is n het wat sy op the word",
    "am": (
        "፣ ነው እና ፡ ምሳሌ ላይ ፤ ነበር ውስጥ ግን ወደ ልጆች እንደ የአማርኛ ወይም ነገር በኋላ ጊዜ ቀን ሲሆን ጋር ዘመን ዓ.ም. እስከ ይህ ትርጉሙ "
        "የኢትዮጵያ ፦"
    ),
    "ar": "، في من على إلى عام أن مع أو هو عن التي كان بين ما كانت هي المتحدة بعد",
    "az": (
        "və ilə ildə bir bu azərbaycan olan üçün sonra də kimi il isə o görə da tərəfindən çox ki onun "
        "edir idi"
    ),
    "be": "і у ў з на года да годзе па ад за быў не што г. для таксама а яго як вобласці пасля",
    "bg": "на и в е от за се г. с през да по",
    "bn": "এবং ও হয় করে একটি তিনি করা থেকে",
    "bs": "je i u se na su od za da godine",
    "ca": "de el la a i d l' en d' que va els per un les una amb es",
    "cs": "v a se na je z s do",
    "cy": "yn y a ffilm o gan 'r ar mae yw cyfarwyddwr ei i oedd wedi",
    "da": "i og af en til er den at som på for med det blev var der fra de han et",
    "de": "der und die in von im den des mit das er dem als wurde für",
    "el": "του και το της η την από ο με τον να που των στην για στο σε είναι τη τα οι",
    "eo": "la de en kaj estas al estis li",
    "es": "de la en el y a que del los se por un con una las su",
    "et": "ja on oli ta aastal eesti ka ning et mis kui aasta ei või see oma tema",
    "eu": "eta da ziren zen bat zuen zeuden izan",
    "fa": "در و ، به از که است این را با یک",
    "fi": (
        "ja on oli hän vuonna myös joka se ei sen ovat sekä mutta että tai vuoden kanssa hänen s. jälkeen the"
    ),
    "fr": "de la le et à en l' des du les est d' un une il dans par au",
    "ga": "an a na agus ar i is le sa go é ag sé bhí de",
    "gl": "de a e o en que do da un no os na é unha como",
    "gu": (
        "છે અને આ જ એક આવેલા તેમ કે ગામમાં પણ માટે ખેતી આવે કરવામાં ભાગમાં તે હતી હતા પર મુખ્ય હતો જે "
        "ભારત હતું આવેલું ગામ સાથે ગુજરાત કરી રાજ્યના પશ્ચિમ દેશના તરીકે દ્વારા મુખ્યત્વે જેવી પ્રાથમિક "
        "અન્ય શાળા હોય એ પશુપાલન ગામના ખેતમજૂરી આંગણવાડી વ્યવસાય પંચાયતઘર ડેરી કરે પ્રાપ્ય દૂધની સવલતો "
        "લોકોનો તાલુકામાં જિલ્લામાં"
    ),
    "he": "של את על הוא עם בשנת גם היה היא לאחר לא ידי בין או כי",
    "hi": "के में है की और से का को एक हैं पर",
    "hr": "je u i se na su za od s a",
    "hu": "a az és is egy volt hogy nem meg de magyar első el között",
    "hy": (
        "է և են էր թվականի թվականին որ իր ծրագիր նա նաև որը այն հետ համար ու նրա այդ առաջին մի էին իսկ որպես"
    ),
    "id": "dan yang di pada dari ini dengan adalah untuk dalam",
    "is": "og í á að sem er var til við en af um hann með",
    "it": "di e il la in a del che è della un per nel l' con da i una",
    "ka": "და წლის წელს იყო რომელიც რომ მისი შემდეგ რესურსები ინტერნეტში ამ იგი არ the როგორც საქართველოს",
    "kk": (
        "және су бойынша мен жылы коды өзен орналасқан мәліметтер жер бұл саны тұрғындарының адамды "
        "оның болып алып мемлекеттік құрайды жаңа ол гз бар жатқан"
    ),
    "kn": "ಮತ್ತು ಈ ಒಂದು ಎಂದು ಅಥವಾ ಅವರು ಇದು ಹಾಗೂ ಅವರ ಎಂಬ ಮೇಲೆ ನಂತರ ತನ್ನ ಆದರೆ ತಮ್ಮ ರಲ್ಲಿ ಮೂಲಕ ಹೆಚ್ಚು",
    "ky": (
        "жана менен боюнча кыргыз суу ж. бир мамлекеттик колдонулган адабияттар жылы ал коду isbn башкы "
        "болгон б шилтемелер б. да болуп энциклопедия үчүн бул же борбору анын а. калкы эле тил"
    ),
    "la": "et in est anno praefecturae de a ad",
    "lt": "m ir buvo į nuo iš d su yra lietuvos a iki o kaip kad apie po km",
    "lv": "un ir no ar gadā gada par bija arī",
    "mk": "на во и од се за со е година да како",
    "ml": "ഒരു ഈ ൽ എന്ന ഇത് അദ്ദേഹം നിന്ന് ചെയ്തു ആണ് അവർ ഓഫ് ഏറ്റവും മുതൽ പ്രധാന",
    "mn": "нь онд оны юм улсын байна сарын болон байсан энэ бөгөөд их монгол ба олон улс гэж хүн нэг байдаг",
    "mr": (
        "आहे आणि हे व या एक ते हा आहेत स असते होते ही येथे मध्ये केले असतो महाराष्ट्र हवामान इ गाव "
        "राज्यातील जाते केली जिल्ह्यातील म्हणून पर्यंत"
    ),
    "ms": "dan di yang pada dalam dengan untuk ini",
    "mt": "l- tal- u ta' il- li fl- fil- mill-",
    "ne": "र छ थियो हो एक पनि मा थिए यो",
    "nl": "de van in het een en is op voor met door zijn werd hij uit",
    "nn": "i og av er som til på ein det med for den han vart frå var dei",
    "no": "i og av som en er til på for ble med den det var han de å fra",
    "pa": "ਵਿੱਚ ਦੇ ਹੈ ਅਤੇ ਦੀ ਨੂੰ ਦਾ ਸੀ ਇੱਕ ਤੋਂ ਨੇ ਹਨ ਤੇ ਲਈ ਨਾਲ",
    "pl": "w i na z do się roku od a jest przez po jako oraz o został był nie",
    "pt": "de a e o em do da que um no uma com para na é foi",
    "ro": "de în a și din la o cu este un pe fost care al",
    "ru": "в и на с года по году из был к не от что за для его как а он также до после",
    "si": "සහ අතර හා වන ලෙස මෙම වූ විය ඇති විසින් කරන සඳහා ද වේ ඇත දී එය හෝ කර ඔහු කළ කිරීම ශ්‍රී යන නම් බව",
    "sk": "v a na sa je z roku s",
    "sl": "je v in na so se ki za leta z",
    "so": "oo iyo ka ah ee ku u waa la waxaa ay soo uu waxay",
    "sq": "të e në dhe i një me nga për është që më u si",
    "sr": "у је и на се од су године да за из са насеље",
    "sv": "i och är av en som den med på till att för",
    "sw": "ya na wa katika kwa ni la za mwaka",
    "ta": (
        "மற்றும் ஒரு இந்த ஆம் இது என்ற இவர் உள்ள ஆகும் ஆண்டு அல்லது என்பது முதல் உள்ளது என்று இந்திய "
        "மக்கள் ஊராட்சி இல் இருந்து மேலும் பல"
    ),
    "te": "నుండి కి ఉన్నాయి మీ గ్రామం ఉంది దూరంలో ఈ కేంద్రం",
    "tg": "дар ва аз ба ки аст соли бо деҳа дорад",
    "tl": "ng sa ang na mga ay at isang noong",
    "tr": "ve bir olarak bu ile için olan da de tarafından yılında sonra en daha ilk the",
    "tt": "урнашкан һәм ° климаты географиясе c уртача халык",
    "uk": "у в на і з та до року за що",
    "ur": "کے میں ، کی اور ہے سے کا نے اس پر کو ایک",
    "uz": (
        "va bilan u uchun joylashgan bir bu boʻlgan ham uning aholi birinchi edi eng tomonidan boʻlib "
        "nafar qiladi km2 yoki sifatida"
    ),
    "vi": "là và của một được trong năm các có loài này đã người",
}
