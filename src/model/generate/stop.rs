//! Stop strings: where a completion ends before EOS does.

use crate::base::error::Result;

/// Looks for stop strings in a growing completion.
pub struct StopStrings<'a> {
    stop: &'a [String],
    /// Tokens at the end in which a match can be new: a token is at least a byte, and some slack for
    /// characters that are spread over tokens.
    window: usize,
}

impl<'a> StopStrings<'a> {
    pub fn new(stop: &'a [String]) -> Self {
        let longest = stop.iter().map(String::len).max().unwrap_or(0);
        Self { stop, window: longest + 8 }
    }

    /// Whether the completion `ids` now holds a stop string. Only its end is decoded, so that the cost of a
    /// step does not grow with the completion.
    pub fn hit(&self, ids: &[u32], decode: &dyn Fn(&[u32]) -> Result<String>) -> Result<bool> {
        if self.stop.is_empty() {
            return Ok(false);
        }
        let tail = decode(&ids[ids.len().saturating_sub(self.window)..])?;
        Ok(self.first(&tail).is_some())
    }

    /// `text` up to the first stop string in it.
    pub fn cut(&self, text: &str) -> String {
        text[..self.first(text).unwrap_or(text.len())].to_owned()
    }

    fn first(&self, text: &str) -> Option<usize> {
        self.stop.iter().filter_map(|s| text.find(s.as_str())).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(ids: &[u32]) -> Result<String> {
        Ok(ids.iter().map(|i| char::from(*i as u8)).collect())
    }

    #[test]
    fn a_stop_string_spread_over_tokens_is_found_when_its_last_token_comes() {
        let stop = ["END".to_owned(), "\n\n".to_owned()];
        let stops = StopStrings::new(&stop);
        let ids: Vec<u32> = format!("{}END", "long ".repeat(20)).bytes().map(u32::from).collect();
        let first_hit = (1..=ids.len()).find(|n| stops.hit(&ids[..*n], &bytes).unwrap());
        assert_eq!(first_hit, Some(ids.len()));
        assert_eq!(stops.cut("one\n\ntwo END"), "one");
        assert_eq!(stops.cut("nothing to stop at"), "nothing to stop at");
    }
}
