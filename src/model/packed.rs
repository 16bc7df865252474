//! Sequences packed into one row of tokens, without padding.
//!
//! A batch is a list of segments. A segment attends causally to itself and, where it continues another,
//! to the whole of that one: chosen and rejected of a pair are two segments that continue one prompt, so
//! that the prompt is computed once, forward and backward.

use crate::data::Sequence;

/// `ids[start..start + len]`, in one piece of context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub start: usize,
    pub len: usize,
    /// Index of the segment that this one continues (that one continues none, and stands before it).
    pub continues: Option<usize>,
}

/// A log-prob to be read: log p(`target` | context of the token at `row`), for sequence `sequence`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    pub row: u32,
    pub target: u32,
    pub sequence: u32,
}

/// A packed batch: t tokens, s segments, n sequences, r reads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Packed {
    /// (t,)
    pub ids: Vec<u32>,
    /// (t,) position of each token within its own sequence.
    pub positions: Vec<u32>,
    pub segments: Vec<Segment>,
    /// (r,) grouped by sequence, in order of position.
    pub reads: Vec<Read>,
    pub sequences: usize,
}

impl Packed {
    /// Adds sequences that have the same prompt; returns the index of the first.
    ///
    /// One sequence becomes one segment; several become a prompt segment and one more each. The reads are
    /// the completion tokens of each.
    pub fn push_group(&mut self, group: &[&Sequence]) -> usize {
        let first = self.sequences;
        if let [only] = group {
            self.push_segment(&only.ids, 0, None);
            let start = self.ids.len() - only.ids.len();
            self.push_reads(only, start + only.prompt_len - 1, start + only.prompt_len);
            return first;
        }
        let Some(head) = group.first() else { return first };
        debug_assert!(group.iter().all(|s| s.prompt() == head.prompt()), "a group shares its prompt");
        self.push_segment(head.prompt(), 0, None);
        let (prompt, last_prompt_row) = (self.segments.len() - 1, self.ids.len() - 1);
        for sequence in group {
            let start = self.ids.len();
            // The last completion token predicts nothing, but is kept: positions stay simple.
            self.push_segment(sequence.completion(), sequence.prompt_len, Some(prompt));
            self.push_reads(sequence, last_prompt_row, start);
        }
        first
    }

    /// Packs each sequence on its own.
    pub fn of<'a>(sequences: impl IntoIterator<Item = &'a Sequence>) -> Self {
        let mut packed = Self::default();
        for sequence in sequences {
            packed.push_group(&[sequence]);
        }
        packed
    }

    /// Adds sequences that have the same prompt, as [`Packed::push_group`] does, with one read each: at its last
    /// token that is not `pad` (at its first, where all are), which is where Hugging Face's sequence
    /// classification reads the score. The target of such a read says nothing.
    pub fn push_scored(&mut self, group: &[&Sequence], pad: Option<u32>) {
        let (first, reads, start) = (self.sequences, self.reads.len(), self.ids.len());
        self.push_group(group);
        self.reads.truncate(reads);
        // Where each completion begins in the batch: right after its prompt, or after its predecessor.
        let mut completion = start + group.first().map_or(0, |s| s.prompt_len);
        for (i, sequence) in group.iter().enumerate() {
            let last = last_token(&sequence.ids, pad);
            let row = match last.checked_sub(sequence.prompt_len) {
                Some(within) => completion + within,
                None => start + last,
            };
            self.reads.push(Read { row: row as u32, target: 0, sequence: (first + i) as u32 });
            completion += sequence.completion_len();
        }
    }

    fn push_segment(&mut self, ids: &[u32], position: usize, continues: Option<usize>) {
        self.segments.push(Segment { start: self.ids.len(), len: ids.len(), continues });
        self.positions.extend((position..position + ids.len()).map(|p| p as u32));
        self.ids.extend_from_slice(ids);
    }

    fn push_reads(&mut self, sequence: &Sequence, before: usize, start: usize) {
        let index = self.sequences as u32;
        for (i, &target) in sequence.completion().iter().enumerate() {
            let row = if i == 0 { before } else { start + i - 1 };
            self.reads.push(Read { row: row as u32, target, sequence: index });
        }
        self.sequences += 1;
    }
}

/// Where a sequence's score is read: the last token that is not `pad`, or the first where all are.
pub fn last_token(ids: &[u32], pad: Option<u32>) -> usize {
    match pad {
        Some(pad) => ids.iter().rposition(|&id| id != pad).unwrap_or(0),
        None => ids.len().saturating_sub(1),
    }
}
