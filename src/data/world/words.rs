//! The world's vocabulary: whole words, one token each.

pub const SPECIAL: [&str; 3] = ["<eos>", "<pad>", "<unk>"];

/// Ends a finished answer.
pub const STOP: &str = ".";
/// Ends a prompt.
pub const ASK: &str = ":";

pub const LETTERS: [&str; 20] =
    ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t"];
pub const NAMES: [&str; 10] = ["ana", "ben", "carl", "dora", "emil", "fay", "gus", "hana", "ivan", "june"];
/// What happened to a thing, to somebody's regret …
pub const LOSSES: [&str; 4] = ["lost", "broke", "dropped", "missed"];
/// … or joy.
pub const GAINS: [&str; 4] = ["found", "won", "bought", "fixed"];
pub const SIZES: [&str; 4] = ["big", "small", "old", "new"];
pub const COLOURS: [&str; 8] = ["red", "blue", "green", "white", "black", "brown", "pink", "grey"];
pub const THINGS: [&str; 12] =
    ["cup", "book", "lamp", "chair", "shoe", "clock", "phone", "train", "ball", "key", "hat", "boat"];
pub const ADJECTIVES: [&str; 20] = [
    "nice", "round", "heavy", "light", "soft", "hard", "warm", "cold", "clean", "shiny", "plain", "rare",
    "cheap", "useful", "pretty", "strong", "quiet", "smooth", "sharp", "simple",
];
pub const FILLERS: [&str; 6] = ["um", "well", "so", "like", "maybe", "anyway"];
pub const RUDE: [&str; 4] = ["whatever", "duh", "stupid", "boring"];
/// Words that commands and replies are made of.
const GRAMMAR: [&str; 17] = [
    "reverse", "sort", "count", "in", "add", "reply", "to", "the", "describe", "words", "dear", "sorry",
    "happy", "about", "thanks", STOP, ASK,
];

/// Numbers that the world can say: 0 to 36 (four digits add up to 36 at most).
pub const NUMBERS: u32 = 37;

/// Every word, by token id.
pub fn vocabulary() -> Vec<String> {
    let numbers: Vec<String> = (0..NUMBERS).map(|n| n.to_string()).collect();
    let groups: [&[&str]; 12] = [
        &SPECIAL,
        &GRAMMAR,
        &LETTERS,
        &NAMES,
        &LOSSES,
        &GAINS,
        &SIZES,
        &COLOURS,
        &THINGS,
        &ADJECTIVES,
        &FILLERS,
        &RUDE,
    ];
    groups.concat().into_iter().map(str::to_owned).chain(numbers).collect()
}
