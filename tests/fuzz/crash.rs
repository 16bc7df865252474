//! What was under way when something went wrong: panics keep their words, and a process that aborts says where.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::sync::Once;

use crate::readers::READERS;

thread_local! {
    static WORDS: RefCell<String> = const { RefCell::new(String::new()) };
    static AT: Cell<(usize, u64)> = const { Cell::new((usize::MAX, 0)) };
}

/// Input `number` of a reader begins in this thread.
pub fn at(reader: usize, number: u64) {
    AT.set((reader, number));
}

/// The last panic of this thread.
pub fn last_words() -> String {
    WORDS.with_borrow(Clone::clone)
}

/// Keeps panics silent in threads that read, and has an abort name its input.
pub fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| match AT.get().0 {
            usize::MAX => before(info),
            _ => WORDS.with_borrow_mut(|words| *words = info.to_string().replace('\n', "; ")),
        }));
        // SAFETY: the handler writes to stderr and nothing else.
        unsafe { libc::signal(libc::SIGABRT, aborted as *const () as libc::sighandler_t) };
    });
}

extern "C" fn aborted(_: libc::c_int) {
    let (reader, number) = AT.get();
    let name = READERS.get(reader).map_or("no reader", |r| r.name);
    // A stack may be all used up: the text is made without one allocation.
    let mut digits = [0u8; 20];
    let (mut at, mut rest) = (digits.len(), number);
    while rest > 0 || at == digits.len() {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    for part in [b"\nabort in input ", &digits[at..], b" of ", name.as_bytes(), b"\n"] {
        // SAFETY: the pointer and the length are those of a slice.
        unsafe { libc::write(2, part.as_ptr().cast(), part.len()) };
    }
}

/// Writes the input of a finding.
pub fn keep(reader: &str, number: u64, input: &[u8]) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fuzz");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{}-{number}", reader.replace(' ', "-")));
    std::fs::write(&path, input).unwrap();
    path
}
