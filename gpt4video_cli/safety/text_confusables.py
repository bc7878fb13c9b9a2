"""Letters of other scripts that look like Latin ones. Written for this project, by looking; Unicode's list is longer.

NFKC already unfolds full-width, mathematical, circled and superscript letters; these are the rest that people use to
hide words: Cyrillic, Greek, Armenian, Cherokee, small capitals and letters with strokes.
"""

from __future__ import annotations

_TABLE = {
    "a": "аɑαᴀₐӑӓⱥᗅɐ",
    "b": "вьБβƀɓʙᏏᖯƄ",
    "c": "сϲᴄƈȼᏟↄ",
    "d": "ԁɗđᴅԀᏧժ",
    "e": "еєεɛᴇҽəɘєҿ",
    "f": "ƒϝꜰғẝ",
    "g": "ɡɢցɠǥԍᏀ",
    "h": "һнհʜħηᏂԋ",
    "i": "іιɪıɩӏїɨ",
    "j": "јϳʝᴊɉ",
    "k": "кκᴋƙĸҝқ",
    "l": "ⅼʟłɫɭᏞℓ",
    "m": "мᴍɱᎷϻ",
    "n": "пոɴŋƞռ",
    "o": "оοᴏσөօøסɵ",
    "p": "рρᴘϼƿᏢ",
    "q": "ԛզɋ",
    "r": "гʀɾɍгᎡя",
    "s": "ѕꜱʂƨᏚ",
    "t": "тτᴛŧƭᎢ",
    "u": "υսᴜʋцμ",
    "v": "ѵνᴠⱴᏙ",
    "w": "ԝѡωաᴡɯшᎳ",
    "x": "хχҳ",
    "y": "уγʏүұყ",
    "z": "ᴢʐƶᏃz",
}
LATIN: dict[str, str] = {
    variant: letter
    for letter, alike in _TABLE.items()
    for variant in dict.fromkeys(alike + alike.lower() + alike.casefold())
}
"""A letter that is no Latin letter -> the one that it looks like; both small."""

DIGITS: dict[str, str] = {
    "0": "o", "1": "il", "3": "e", "4": "a", "5": "s", "6": "gb", "7": "t", "8": "b", "9": "g", "2": "z",
    "@": "a", "$": "s", "!": "i", "|": "il", "€": "e", "£": "l", "+": "t", "¢": "c", "§": "s", "(": "c", "#": "h",
}  # fmt: skip
"""A digit or sign -> the letters that it stands for in words spelled with digits."""
