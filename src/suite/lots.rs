//! Which examples are scored where a suite is asked for a few.

use std::collections::BTreeMap;

use rand::RngExt;

use crate::base::seed;

/// Draws at most `most` items (0: all) while they are read, and holds no more of them than that.
///
/// Files are sorted by subject, so that their heads are of a few: an item's lot hangs on its id alone, the same whoever asks,
/// and a smaller number is a part of a larger one.
pub(super) struct Lots<T> {
    most: usize,
    offered: usize,
    /// By lot and place; the last is the first to go.
    drawn: BTreeMap<(u64, usize), T>,
}

impl<T> Lots<T> {
    pub fn new(most: usize) -> Self {
        Self { most, offered: 0, drawn: BTreeMap::new() }
    }

    pub fn offer(&mut self, id: &str, item: T) {
        let lot = match self.most {
            0 => 0,
            _ => seed::rng(0, &format!("suite/examples/{id}")).random::<u64>(),
        };
        self.drawn.insert((lot, self.offered), item);
        self.offered += 1;
        if self.most > 0 && self.drawn.len() > self.most {
            self.drawn.pop_last();
        }
    }

    /// The drawn items with their places among those offered, in this order.
    pub fn drawn(self) -> Vec<(usize, T)> {
        let mut drawn: Vec<(usize, T)> =
            self.drawn.into_iter().map(|((_, place), item)| (place, item)).collect();
        drawn.sort_unstable_by_key(|(place, _)| *place);
        drawn
    }
}

/// [`Lots`] of items that are there already.
pub(super) fn draw<T>(items: Vec<T>, most: usize, id: impl Fn(&T) -> &str) -> Vec<T> {
    if most == 0 || items.len() <= most {
        return items;
    }
    let mut lots = Lots::new(most);
    for item in items {
        let id = id(&item).to_owned();
        lots.offer(&id, item);
    }
    lots.drawn().into_iter().map(|(_, item)| item).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_few_examples_are_drawn_from_all_of_a_file_and_nested() {
        // Ten topics, one after another.
        let ids: Vec<String> = (0..500).map(|i| format!("test.jsonl:{i}")).collect();
        let few = |n: usize| draw(ids.clone(), n, String::as_str);
        let topics: BTreeSet<usize> =
            few(100).iter().map(|id| ids.iter().position(|i| i == id).unwrap() / 50).collect();
        assert_eq!((few(100).len(), topics.len()), (100, 10));
        assert!(few(20).iter().all(|id| few(100).contains(id)));
        let places: Vec<usize> = few(20).iter().map(|id| ids.iter().position(|i| i == id).unwrap()).collect();
        assert!(places.is_sorted(), "in the file's order: {places:?}");
        // Other rows beside them move none of the lots.
        let rest: Vec<String> = ids[250..].to_vec();
        let of_half = draw(rest.clone(), 250, String::as_str);
        assert_eq!((of_half, few(0).len()), (rest, 500));
        let without: Vec<String> = ids.iter().filter(|id| !few(20).contains(id)).cloned().collect();
        let next = draw(without, 80, String::as_str);
        assert!(next.iter().all(|id| few(100).contains(id)));
    }
}
