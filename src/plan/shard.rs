//! A share of a plan's runs.

use std::fmt;
use std::str::FromStr;

use crate::base::error::{Error, Result, anyhow};

/// Part `index` of `of` parts, from 1: every `of`-th run of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    pub index: usize,
    pub of: usize,
}

impl Shard {
    /// Whether the run at `place` in the plan (from 0) belongs to this part.
    pub fn takes(self, place: usize) -> bool {
        place % self.of == self.index - 1
    }

    /// Name of its folder.
    pub fn folder(self) -> String {
        format!("{}-of-{}", self.index, self.of)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || anyhow!("`{text}` is no shard; write i/n with 1 ≤ i ≤ n, such as 2/8");
        let (index, of) = text.split_once('/').ok_or_else(wrong)?;
        let number = |s: &str| s.trim().parse::<usize>().map_err(|_| wrong());
        let (index, of) = (number(index)?, number(of)?);
        if index < 1 || index > of {
            return Err(wrong());
        }
        Ok(Self { index, of })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_all_runs_out() {
        for of in 1..9 {
            for place in 0..40 {
                let takers = (1..=of).filter(|&index| Shard { index, of }.takes(place)).count();
                assert_eq!(takers, 1);
            }
        }
        assert_eq!("2/8".parse::<Shard>().unwrap(), Shard { index: 2, of: 8 });
        for wrong in ["", "3", "0/2", "3/2", "1/0", "a/2", "1/2/3", "-1/2"] {
            assert!(wrong.parse::<Shard>().unwrap_err().to_string().contains("no shard"), "{wrong}");
        }
    }
}
