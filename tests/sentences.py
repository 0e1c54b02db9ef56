"""A sentence in each of many scripts, with what makes words hard to tell in it."""

SENTENCES = {
    "English": "The quick brown fox jumps over the lazy dog, again and again.",
    "French": "Déjà vu : l’été où l’œuvre naïve s’arrêta… à Zürich.",
    "German": "Die Straße war groß, und überall grüßten Leute die Füchse.",
    "Vietnamese": "Tiếng Việt là ngôn ngữ của người Việt.",
    "Russian": "Съешь ещё этих мягких французских булок, да выпей чаю.",
    "Greek": "Ο Σίσυφος ἀνέβαινε τὸν λόφον, ᾠδὴν ᾄδων.",
    "Arabic": "اَلْعَرَبِيَّةُ لُغَةٌ جميلة، وهذه جملة.",
    "Persian": "می‌خواهم این کتاب‌ها را بخوانم.",
    "Hebrew": "בְּרֵאשִׁית בָּרָא אֱלֹהִים",
    "Hindi": "कर्म ही पूजा है, हिन्दी में लिखा हुआ वाक्य।",
    "Bengali": "আমার সোনার বাংলা, আমি তোমায় ভালোবাসি।",
    "Korean": "한국어로 쓰인 평범한 문장입니다.",
    "Chinese": "中文维基百科，自由的百科全书。𠀀𠀁",
    "Japanese": "カタカナとひらがなと漢字、ﾊﾝｶｸも。がぎぐ",
    "Thai": "ภาษาไทยเป็นภาษาที่มีระดับเสียง น้ำ",
    "Lao": "ພາສາລາວ ບໍ່ມີຍະຫວ່າງ",
    "Khmer": "ភាសាខ្មែរ ជាភាសា",
    "Myanmar": "မြန်မာဘာသာစကား",
    "Tibetan": "བོད་སྐད་ཡིག",
    "symbols": "½ ﬁne ① x² ™ ❤️ 1️⃣ snake_case __init__ exam\u00adple a\u200bb \u0301mark",
}
