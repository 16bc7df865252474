//! What a trainer writes: kept up to a cap, its end kept always.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::base::error::{Context, Result};

/// Bytes of the end that a failure shows.
const TAIL: usize = 4096;

/// Reads a pipe on a thread of its own, so that the trainer never waits for us.
pub(super) struct Log {
    shared: Arc<Mutex<Shared>>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    bytes: u64,
    tail: VecDeque<u8>,
}

impl Log {
    /// Copies `pipe` to `path` until `cap` bytes, then goes on reading.
    ///
    /// # Errors
    /// A file that cannot be created.
    pub fn start(mut pipe: impl Read + Send + 'static, path: &Path, cap: u64) -> Result<Self> {
        let mut file = File::create(path).with_context(|| format!("writing {}", path.display()))?;
        let shared = Arc::new(Mutex::new(Shared::default()));
        let theirs = Arc::clone(&shared);
        let reader = std::thread::spawn(move || {
            let mut block = vec![0; 64 << 10];
            while let Ok(n @ 1..) = pipe.read(&mut block) {
                let mut shared = theirs.lock().unwrap_or_else(PoisonError::into_inner);
                let room = usize::try_from(cap.saturating_sub(shared.bytes)).unwrap_or(usize::MAX);
                // A full disk costs the log, not the run.
                let _ = file.write_all(&block[..n.min(room)]);
                if (1..=n).contains(&room) {
                    let _ = write!(file, "\n[kto-eval: the log is cut here at {cap} bytes]\n");
                }
                shared.bytes += n as u64;
                shared.tail.extend(&block[..n]);
                let over = shared.tail.len().saturating_sub(TAIL);
                shared.tail.drain(..over);
            }
        });
        Ok(Self { shared, reader: Some(reader) })
    }

    /// Bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }

    /// The last lines, whole characters only.
    pub fn tail(&self) -> String {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(shared.tail.make_contiguous()).trim_end().to_owned()
    }

    /// Waits for the end of the pipe. A process that escaped with the pipe in its hands is not waited for.
    pub fn finish(&mut self) {
        let Some(reader) = self.reader.take() else { return };
        for _ in 0..40 {
            if reader.is_finished() {
                let _ = reader.join();
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(25));
        }
    }
}
