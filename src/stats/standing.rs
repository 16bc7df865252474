//! What a verdict under one matched currency says under another that was not matched.
//!
//! Scores exist at the end of runs only, so a verdict at another budget is not known. Its direction is, on one
//! assumption: an arm does not get worse with more budget. Then a winner that spent less would still win with
//! as much as the loser, and one that spent more might not have won with less.

use crate::record::Verdict;

/// How a comparison stands in a currency that was not matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Both arms spent the same: the verdict is that of this currency too.
    Matched,
    /// The winner spent less.
    Stands,
    /// The winner spent more, and might not win with less.
    Open,
    /// No winner; the arm that spent less could only gain: `true`: arm a.
    CouldMoveTo(bool),
}

/// Standing of a verdict seen from arm a, where the arms spent `a` and `b` of another currency (both positive);
/// amounts at most `tolerance` apart (larger / smaller − 1) count as matched. `None`: there is no verdict.
pub fn standing(verdict: Verdict, a: f64, b: f64, tolerance: f64) -> Option<Standing> {
    let apart = a.max(b) / a.min(b) - 1.0;
    Some(match verdict {
        Verdict::Invalid => return None,
        _ if apart <= tolerance => Standing::Matched,
        Verdict::Better if a < b => Standing::Stands,
        Verdict::Worse if b < a => Standing::Stands,
        Verdict::Better | Verdict::Worse => Standing::Open,
        Verdict::Equivalent | Verdict::Undecided => Standing::CouldMoveTo(a < b),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_winner_that_spent_less_stands_and_one_that_spent_more_is_open() {
        let of = |verdict, a, b| standing(verdict, a, b, 0.01);
        assert_eq!(of(Verdict::Better, 1.0, 2.0), Some(Standing::Stands));
        assert_eq!(of(Verdict::Better, 2.0, 1.0), Some(Standing::Open));
        assert_eq!(of(Verdict::Worse, 2.0, 1.0), Some(Standing::Stands));
        assert_eq!(of(Verdict::Worse, 1.0, 2.0), Some(Standing::Open));
        assert_eq!(of(Verdict::Undecided, 1.0, 2.0), Some(Standing::CouldMoveTo(true)));
        assert_eq!(of(Verdict::Equivalent, 2.0, 1.0), Some(Standing::CouldMoveTo(false)));
        assert_eq!(of(Verdict::Better, 1.0, 1.005), Some(Standing::Matched));
        assert_eq!(of(Verdict::Invalid, 1.0, 1.0), None);
    }
}
