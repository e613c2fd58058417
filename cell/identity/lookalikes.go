package identity

// lookalikes are lower-case letters, digits and signs, and what they look like. A name's skeleton has them replaced, once.
// Names are lower-case when they come here, and decomposed.
var lookalikes = makeLookalikes()

func makeLookalikes() map[rune]string {
	table := map[rune]string{
		// Within ASCII.
		'0': "o", '1': "l", 'm': "rn", 'w': "vv", '|': "l",
		// Latin with strokes and such, which decomposition leaves.
		'ı': "i", 'ȷ': "j", 'ø': "o", 'đ': "d", 'ħ': "h", 'ł': "l", 'ŧ': "t", 'ß': "ss", 'æ': "ae", 'œ': "oe",
		// Signs that stand for ASCII ones.
		'·': ".", '‧': ".", '‐': "-", '‑': "-", '‒': "-", '–': "-", '−': "-", 'ʻ': "'", 'ʼ': "'", '’': "'", '‘': "'", '׳': "'", '״': "\"", 'ー': "一",
	}
	for like, letters := range map[string]string{
		"a": "аα", "b": "Ьь", "c": "сϲ", "d": "ԁ", "e": "еҽ", "f": "ғ", "g": "ց", "h": "һհ", "i": "іι", "j": "јϳյ", "k": "кκ", "l": "ӏ׀וןا١۱",
		"n": "пηոռ", "o": "оοσօס٥ہهംഠ๐໐೦౦௦०০੦૦୦൦०๏", "p": "рρթ", "q": "ԛզ", "r": "гг", "s": "ѕ", "t": "тτ", "u": "υս", "v": "ѵνט",
		"x": "хχ", "y": "уγ", "vv": "шԝω", "rn": "м",
	} {
		for _, r := range letters {
			table[r] = like
		}
	}
	return table
}
