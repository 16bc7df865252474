//! Which numbers a key takes, in a form that checks and explains itself.

/// A range of numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Range {
    /// x > 0.
    Positive,
    /// x ≥ 0.
    NonNegative,
    /// 0 ≤ x < 1.
    Share,
    /// 0 < x < 1.
    Open,
    /// 0 ≤ x < 0.5.
    Flip,
    /// 0 < x ≤ 1.
    Part,
    /// 0 ≤ x ≤ 1.
    UpToOne,
}

impl Range {
    pub fn holds(self, x: f64) -> bool {
        x.is_finite()
            && match self {
                Range::Positive => x > 0.0,
                Range::NonNegative => x >= 0.0,
                Range::Share => (0.0..1.0).contains(&x),
                Range::Open => x > 0.0 && x < 1.0,
                Range::Flip => (0.0..0.5).contains(&x),
                Range::Part => x > 0.0 && x <= 1.0,
                Range::UpToOne => (0.0..=1.0).contains(&x),
            }
    }

    /// `is <x>, and must be …`, after the key's name.
    pub fn complaint(self, x: f64) -> String {
        format!("is {x}; it must be {}", self.words())
    }

    pub fn words(self) -> &'static str {
        match self {
            Range::Positive => "a finite number above 0",
            Range::NonNegative => "a finite number, 0 or above",
            Range::Share => "in [0, 1): 0 or above, below 1",
            Range::Open => "in (0, 1): above 0 and below 1",
            Range::Flip => "in [0, 0.5): 0 or above, below one half",
            Range::Part => "in (0, 1]: above 0, at most 1",
            Range::UpToOne => "in [0, 1]",
        }
    }
}
