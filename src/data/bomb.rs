//! Compressed rows that unpack to far more than their file: refused before they fill the memory.

use crate::base::error::{HintExt, Result, anyhow};

/// Rows of a file that is no bomb unpack to at most this many times its size; text compresses to a fifth, and columns
/// of repeated text to a fiftieth.
const MOST_TIMES: u64 = 200;
/// Whatever the file's size, this much may come out of it.
const ALWAYS: u64 = 256 << 20;

/// Counts what has come out of a compressed file.
pub(super) struct Unpacked {
    file: u64,
    bytes: u64,
}

impl Unpacked {
    /// Of a file of `file` bytes.
    pub fn of(file: u64) -> Self {
        Self { file, bytes: 0 }
    }

    /// Takes `bytes` more.
    ///
    /// # Errors
    /// More came out than rows of such a file can be.
    pub fn take(&mut self, bytes: u64) -> Result<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes <= ALWAYS.max(self.file.saturating_mul(MOST_TIMES)) {
            return Ok(());
        }
        let (times, mib) = (self.bytes / self.file.max(1), self.bytes >> 20);
        Err(anyhow!("it unpacks to more than {times} times its size ({mib} MiB so far)"))
            .hint("if its rows really repeat themselves so often, give them unpacked, as JSON lines")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_may_unpack_to_a_quarter_of_a_gib_and_large_ones_to_two_hundred_times_their_size() {
        assert!(Unpacked::of(10).take(ALWAYS).is_ok());
        assert!(Unpacked::of(10).take(ALWAYS + 1).is_err());
        let mut large = Unpacked::of(1 << 30);
        assert!(large.take(200 << 30).is_ok() && large.take(1).is_err());
    }
}
