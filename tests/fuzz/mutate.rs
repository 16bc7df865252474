//! Inputs made from good ones: bytes changed, words of the text changed, parts of several put together.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Numbers at the edges of what types hold.
const NUMBERS: [&str; 24] = [
    "0",
    "-1",
    "1",
    "2",
    "127",
    "128",
    "255",
    "256",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "18446744073709551615",
    "-9223372036854775808",
    "1e308",
    "1e999",
    "-0.0",
    "1e-400",
    "nan",
    "inf",
];

/// Text that means something to most readers.
const WORDS: [&str; 22] = [
    "null",
    "true",
    "false",
    "\"\"",
    "{}",
    "[]",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "'",
    "'''",
    "\\",
    "\\u0000",
    "\u{feff}",
    "\r\n",
    "\0",
    "../../etc/passwd",
    "/etc/passwd",
    "é\u{301}\u{202e}",
    "\u{10ffff}",
];

pub struct Mutator<'a> {
    pub rng: ChaCha8Rng,
    /// Good inputs of the same reader.
    pub seeds: &'a [Vec<u8>],
    /// Words of the reader's own language.
    pub words: &'a [&'static str],
}

impl Mutator<'_> {
    pub fn below(&mut self, n: usize) -> usize {
        self.rng.random_range(0..n.max(1))
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn seed(&mut self) -> Vec<u8> {
        let i = self.below(self.seeds.len());
        self.seeds[i].clone()
    }

    /// A few changes to a text.
    pub fn text(&mut self, mut input: Vec<u8>) -> Vec<u8> {
        for _ in 0..1 + self.few() {
            input = if self.one_in(4) { self.bytes_once(input) } else { self.tokens_once(input) };
        }
        input
    }

    /// A few changes to bytes.
    pub fn bytes(&mut self, mut input: Vec<u8>) -> Vec<u8> {
        for _ in 0..1 + self.few() {
            input = self.bytes_once(input);
        }
        input
    }

    /// Mostly none, at times several.
    fn few(&mut self) -> usize {
        let most = [1, 1, 1, 2, 4, 8][self.below(6)];
        self.below(most)
    }

    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let from = self.below(len + 1);
        let longest = [4, 16, 64, 1024][self.below(4)];
        let n = self.below(longest.min(len - from) + 1);
        from..from + n
    }

    fn bytes_once(&mut self, mut input: Vec<u8>) -> Vec<u8> {
        let at = self.below(input.len());
        match self.below(9) {
            0 if !input.is_empty() => input[at] ^= 1 << self.below(8),
            1 if !input.is_empty() => input[at] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'\n', b'{'][self.below(8)],
            2 => input.truncate(at),
            3 => drop(input.drain(self.range(input.len()))),
            4 => {
                let range = self.range(input.len());
                let copy = input[range].to_vec();
                input.splice(at..at, copy);
            }
            // A number of four or eight bytes, as lengths and offsets are.
            5 if input.len() >= 8 => {
                let at = self.below(input.len() - 7);
                let edge =
                    [0, 1, u64::from(u32::MAX), u64::MAX, 1 << 31, 1 << 63, 1 << 20, 1 << 40][self.below(8)];
                let width = if self.one_in(2) { 4 } else { 8 };
                input[at..at + width].copy_from_slice(&edge.to_le_bytes()[..width]);
            }
            6 => {
                let other = self.seed();
                let range = self.range(other.len());
                input.splice(at..at, other[range].to_vec());
            }
            7 => {
                let other = self.seed();
                let cut = self.below(other.len());
                input.truncate(at);
                input.extend(&other[cut..]);
            }
            _ => {
                let random: Vec<u8> = (0..1 + self.below(8)).map(|_| self.rng.random()).collect();
                input.splice(at..at, random);
            }
        }
        input
    }

    fn tokens_once(&mut self, input: Vec<u8>) -> Vec<u8> {
        let mut tokens = tokens(&input);
        if tokens.is_empty() {
            return self.word().into_bytes();
        }
        let at = self.below(tokens.len());
        match self.below(8) {
            0 | 1 => tokens[at] = self.word().into_bytes(),
            // A number for a number, so that the rest still reads.
            2 | 3 => {
                let numbers: Vec<usize> =
                    (0..tokens.len()).filter(|&i| tokens[i][0].is_ascii_digit()).collect();
                if !numbers.is_empty() {
                    let i = numbers[self.below(numbers.len())];
                    tokens[i] = NUMBERS[self.below(NUMBERS.len())].into();
                }
            }
            4 => drop(tokens.remove(at)),
            5 => {
                let other = self.below(tokens.len());
                tokens.swap(at, other);
            }
            6 => {
                let other = self::tokens(&self.seed());
                if !other.is_empty() {
                    let from = self.below(other.len());
                    let to = (from + 1 + self.below(12)).min(other.len());
                    tokens.splice(at..at, other[from..to].to_vec());
                }
            }
            _ => {
                let to = (at + 1 + self.below(12)).min(tokens.len());
                let part = tokens[at..to].to_vec();
                // At times very often: what is nested or long beyond reason.
                let times = [1, 1, 2, 4, 300, 3000][self.below(6)];
                let many: Vec<Vec<u8>> = std::iter::repeat_n(part, times).flatten().take(4000).collect();
                tokens.splice(at..at, many);
            }
        }
        tokens.concat()
    }

    fn word(&mut self) -> String {
        let own = !self.words.is_empty() && !self.one_in(3);
        match self.below(4) {
            _ if own => self.words[self.below(self.words.len())].to_owned(),
            0 => NUMBERS[self.below(NUMBERS.len())].to_owned(),
            1 => {
                let bracket = ["[", "{", "(", "{\"a\":", "[[", "-", "{%if a%}", "a."][self.below(8)];
                bracket.repeat(1 + self.below(2000))
            }
            _ => WORDS[self.below(WORDS.len())].to_owned(),
        }
    }
}

/// Words, numbers, runs of white space, and every other character by itself.
fn tokens(input: &[u8]) -> Vec<Vec<u8>> {
    let class = |b: u8| match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => 1,
        b'0'..=b'9' | b'.' => 2,
        b' ' | b'\t' => 3,
        _ => 0,
    };
    input.chunk_by(|a, b| class(*a) != 0 && class(*a) == class(*b)).map(<[u8]>::to_vec).collect()
}
